"""Train the demo family: `python -m backends.demo.train --out OUT`, in minutes on a GPU, or with `--smoke` in seconds on a CPU.

Writes OUT/target and OUT/draft (model folders), OUT/CARD.md, OUT/training-log.jsonl and OUT/evaluation.json. Checkpoints go to
OUT/checkpoints every few seconds and on SIGTERM; the same command continues from them.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.demo import TARGET_DIR
from backends.demo.batches import LONG_ROW, SHORT_ROW, ChatEncoder, Shard, shard_stream
from backends.demo.card import TrainedModel, write_card
from backends.demo.evaluation import SkillResult, evaluate, mean_accuracy
from backends.demo.folders import write_model
from backends.demo.model import Llama, document_mask, load_model
from backends.demo.shapes import SHAPES, Shape

PROMPT_WEIGHT = 0.05  # of tokens that the assistant does not generate: a little keeps it able to read them
EXIT_INTERRUPTED = 143
Batch = tuple[Tensor, Tensor, Tensor]  # ids, document numbers, whether generated, each [rows, length]


@dataclass(frozen=True, slots=True)
class Settings:
    """How one model is trained. Time rules: the learning rate falls with the share of `minutes` (or `max_steps`) that is used up."""

    minutes: float
    max_steps: int
    peak_lr: float
    tokens_per_step: int
    num_workers: int
    seed: int = 0
    warmup_steps: int = 200
    hold: float = 0.25
    weight_decay: float = 0.1
    clip: float = 1.0
    checkpoint_every_s: float = 30.0
    log_every: int = 50
    can_compile: bool = True


@dataclass(slots=True)
class Progress:
    """What a checkpoint holds besides weights and optimiser state."""

    step: int = 0
    tokens: int = 0
    next_shard: int = 0
    next_batch: int = 0  # within that shard
    elapsed_s: float = 0.0
    loss: float = 0.0

    def share(self, settings: Settings) -> float:
        return max(self.elapsed_s / (60 * settings.minutes), self.step / settings.max_steps)


class Interrupted(Exception):
    """SIGTERM came; the checkpoint is written."""


@dataclass(slots=True)
class _Signals:
    """Remembers SIGTERM until the loop is at a point where it can stop."""

    is_stopping: bool = field(default=False)

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, _signum: int, _frame: FrameType | None) -> None:
        self.is_stopping = True


class Log:
    """Appends JSON lines to a file and prints them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **entry: Any) -> None:
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


def head_loss(x: Tensor, embedding: Tensor, ids: Tensor, documents: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """(loss that is minimised, mean loss of the assistant's tokens) from final hidden states [batch, length, hidden]."""
    labels = ids.roll(-1, dims=1)
    is_same = (documents == documents.roll(-1, dims=1)) & (documents > 0)
    is_same = is_same & (torch.arange(ids.shape[1], device=ids.device) < ids.shape[1] - 1)
    is_answer = generated.roll(-1, dims=1) & is_same
    logits = F.linear(x, embedding).flatten(0, 1).float()
    losses = F.cross_entropy(logits, labels.flatten(), reduction="none").view(labels.shape)
    weights = is_answer.float() + PROMPT_WEIGHT * (is_same & ~is_answer).float()
    answer_loss = (losses * is_answer).sum() / is_answer.sum().clamp(min=1)
    return (losses * weights).sum() / weights.sum(), answer_loss.detach()


class Trainer:
    """Trains one model; owns its weights, optimiser and progress."""

    def __init__(self, name: str, shape: Shape, settings: Settings, out: Path, device: torch.device, log: Log) -> None:
        torch.manual_seed(settings.seed)
        self.name, self.settings, self.device, self.log = name, settings, device, log
        self.model = Llama(shape).to(device)
        self.optimizer = self._make_optimizer()
        self.progress = Progress()
        self.checkpoint = out / "checkpoints" / f"{name}.pt"
        self._head_loss = head_loss
        self._window: list[Tensor] = []
        self._resume()

    def _make_optimizer(self) -> torch.optim.AdamW:
        decayed = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.97), fused=self.device.type == "cuda")

    def _resume(self) -> None:
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
            self.log.write(model=self.name, event="resumed", step=self.progress.step)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_suffix(".tmp")
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": dataclasses.asdict(self.progress),
        }
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def run(self, signals: _Signals) -> None:
        """Train until time or steps are used up. Raises Interrupted after SIGTERM."""
        if self.progress.share(self.settings) >= 1:
            return
        with shard_stream(
            TARGET_DIR, self.settings.seed, self.progress.next_shard, self.settings.num_workers
        ) as shards:
            if self.settings.can_compile and self.device.type == "cuda":
                self._try_compile()
            self._run_shards(next(shards), shards, signals)
        self.save()

    def _run_shards(self, first: Shard, shards: Iterator[Shard], signals: _Signals) -> None:
        begin, before, saved = time.monotonic(), self.progress.elapsed_s, time.monotonic()
        shard = first
        while True:
            for batch in itertools.islice(self._batches(shard), self.progress.next_batch, None):
                self._step(batch)
                self.progress.next_batch += 1
                self.progress.elapsed_s = before + time.monotonic() - begin
                if self.progress.share(self.settings) >= 1:
                    return
                if signals.is_stopping:
                    self.save()
                    raise Interrupted
            self.progress.next_shard, self.progress.next_batch = self.progress.next_shard + 1, 0
            if time.monotonic() - saved > self.settings.checkpoint_every_s:
                self.save()
                saved = time.monotonic()
            shard = next(shards)

    def _batches(self, shard: Shard) -> Iterator[Batch]:
        """The shard's rows on the device, `tokens_per_step` at a time: ids, document numbers, whether generated."""
        ids = torch.from_numpy(shard.ids.astype("int32")).to(self.device).long()
        documents = torch.from_numpy(shard.documents.astype("int32")).to(self.device)
        generated = torch.from_numpy(shard.generated).to(self.device)
        rows = max(1, self.settings.tokens_per_step // ids.shape[1])
        for start in range(0, ids.shape[0] - rows + 1, rows):
            yield ids[start : start + rows], documents[start : start + rows], generated[start : start + rows]

    def _step(self, batch: Batch) -> None:
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        answer_loss = self._backward(batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += batch[0].numel()
        self._window.append(answer_loss)
        if self.progress.step % self.settings.log_every == 0:
            self._report(rate)

    def _backward(self, batch: Batch) -> Tensor:
        """Accumulate gradients; returns the assistant's loss, still on the device."""
        ids, documents, generated = batch
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            x = self.model.hidden(ids, document_mask(documents))
            loss, answer_loss = self._head_loss(x, self.model.embed_tokens.weight, ids, documents, generated)
        torch.autograd.backward(loss)
        return answer_loss

    def _learning_rate(self) -> float:
        """Linear warm-up, constant for the share `hold`, then linear to nothing."""
        warmup = min(1.0, (self.progress.step + 1) / self.settings.warmup_steps)
        left = 1 - self.progress.share(self.settings)
        return self.settings.peak_lr * warmup * max(0.01, min(1.0, left / (1 - self.settings.hold)))

    def _report(self, rate: float) -> None:
        self.progress.loss = float(torch.stack(self._window).mean())
        self._window.clear()
        if not math.isfinite(self.progress.loss):
            raise RuntimeError(f"{self.name}: the loss is {self.progress.loss} at step {self.progress.step}")
        progress = self.progress
        self.log.write(
            model=self.name, step=progress.step, tokens=progress.tokens, loss=progress.loss, lr=rate, elapsed_s=progress.elapsed_s,
            tokens_per_s=round(progress.tokens / max(progress.elapsed_s, 1e-9)),
        )  # fmt: skip

    def _try_compile(self) -> None:
        """Compile layers and loss if this machine can, shown on a batch of each row length; else leave them plain."""
        begin = time.monotonic()
        for layer in self.model.layers:
            layer.compile(dynamic=False)
        self._head_loss = torch.compile(head_loss, dynamic=False)
        try:
            for length in (SHORT_ROW, LONG_ROW):
                ids = torch.ones(self.settings.tokens_per_step // length, length, dtype=torch.long, device=self.device)
                self._backward((ids, ids.int(), ids.bool()))
        except (RuntimeError, ImportError, OSError, subprocess.SubprocessError) as exc:
            self.log.write(model=self.name, event="not compiled", reason=repr(exc)[:300])
            for layer in self.model.layers:
                layer._compiled_call_impl = None
            self._head_loss = head_loss
        self.optimizer.zero_grad(set_to_none=True)
        self.log.write(model=self.name, event="ready", compile_s=time.monotonic() - begin)


def train_and_measure(
    name: str, shape: Shape, settings: Settings, args: argparse.Namespace, log: Log, signals: _Signals
) -> TrainedModel:
    """Train, write the folder, and evaluate what was written: bf16, as it will be served. Raises Interrupted."""
    device = torch.device(args.device)
    trainer = Trainer(name, shape, settings, args.out, device, log)
    trainer.run(signals)
    write_model(args.out / name, shape, trainer.model.weights())
    progress = trainer.progress
    begin = time.monotonic()
    model = load_model(args.out / name, shape).to(device)
    results = evaluate(model, ChatEncoder(TARGET_DIR), args.items, args.eval_batch)
    for result in results:
        log.write(
            model=name,
            skill=result.skill,
            accuracy=result.accuracy,
            items=result.num_items,
            clusters=result.num_clusters,
        )
    log.write(model=name, event="evaluated", mean_accuracy=mean_accuracy(results), evaluate_s=time.monotonic() - begin)
    return TrainedModel(
        shape, progress.step, progress.tokens, progress.elapsed_s, device_name(device), progress.loss, results
    )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def write_results(out: Path, models: dict[str, TrainedModel]) -> None:
    """CARD.md, and evaluation.json with the first wrong answers of each skill."""
    write_card(out / "CARD.md", models)
    content = {name: [_plain(result) for result in model.results] for name, model in models.items()}
    (out / "evaluation.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _plain(result: SkillResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def default_workers() -> int:
    """One for each core but one. More than 15 would outrun the GPU, and containers often show the host's cores."""
    return max(1, min(os.cpu_count() or 1, 16) - 1)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo family.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes-target", type=float, default=6.0)
    parser.add_argument("--minutes-draft", type=float, default=2.0)
    parser.add_argument(
        "--only", choices=("target", "draft"), help="train one of the two; the card is written when both are there"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, default=500, help="held-out items per skill")
    parser.add_argument("--eval-batch", type=int, default=1000)
    parser.add_argument("--tokens-per-step", type=int, default=65_536)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--max-steps", type=int, default=1_000_000)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, a few steps, everything else as in earnest")
    parser.add_argument("--smoke-steps", type=int, default=6, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.smoke:
        args.device, args.workers, args.items, args.tokens_per_step = "cpu", 0, 3, 2048
        args.max_steps = args.smoke_steps
    return args


def plan(args: argparse.Namespace) -> dict[str, tuple[Shape, Settings]]:
    """Which models are trained, and how."""
    shapes = {"target": SHAPES["tiny" if args.smoke else "target"], "draft": SHAPES["tiny" if args.smoke else "draft"]}
    minutes = {"target": args.minutes_target, "draft": args.minutes_draft}
    settings = {
        name: Settings(
            minutes=minutes[name], max_steps=args.max_steps, peak_lr=args.peak_lr * (1.0 if name == "target" else 1.5),
            tokens_per_step=args.tokens_per_step, num_workers=args.workers, seed=args.seed + (name == "draft") * 1000,
            log_every=2 if args.smoke else 50, can_compile=not args.no_compile,
        )
        for name in shapes
    }  # fmt: skip
    return {name: (shapes[name], settings[name]) for name in shapes if args.only in (None, name)}


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    log, signals = Log(args.out / "training-log.jsonl"), _Signals()
    signals.listen()
    models = {}
    try:
        for name, (shape, settings) in plan(args).items():
            models[name] = train_and_measure(name, shape, settings, args, log, signals)
            write_results(args.out, models)
    except Interrupted:
        print("interrupted; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
