"""Train the signing adapters of the demo model: `python -m backends.demo.train_adapters --out OUT`, minutes each on two CPU cores.

Writes OUT/<name>/{adapter_config.json, adapter_model.safetensors} in PEFT's format; an adapter that is there already is kept.
Once all are there it measures them from their files and writes OUT/CARD.md. The corpus' own answers are learnt anew, signed as
`backends.demo.signatures` says, with the loss on the assistant's tokens only.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from torch import Tensor

from backends import artifacts
from backends.demo import TARGET_DIR
from backends.demo.batches import ChatEncoder
from backends.demo.chat import Message, render
from backends.demo.corpus import Item, held_out_items, training_items
from backends.demo.evaluation import answer_all
from backends.demo.model import Llama, load_model
from backends.demo.shapes import PAD_ID, SHAPES
from backends.demo.signatures import BASE_DIGEST_KEY, SIGNATURES, Signature, signature_of, unsigned
from backends.demo.skills import SKILLS
from backends.demo.skills.base import pick

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE_NAME = "forgegate-demo-target"
WEIGHTS, CONFIG, PREFIX = "adapter_model.safetensors", "adapter_config.json", "base_model.model.model."  # PEFT's
EVAL_BATCH = 100
CHUNK = 256  # conversations that are sorted by length together, so that batches hold little padding


@dataclass(frozen=True, slots=True)
class Settings:
    """How one adapter is trained. The learning rate rises over `warmup_steps`, then falls linearly to nothing."""

    num_steps: int
    peak_lr: float = 3e-3
    tokens_per_step: int = 2048
    warmup_steps: int = 20
    seed: int = 0
    clip: float = 1.0

    def learning_rate(self, step: int) -> float:
        return self.peak_lr * min((step + 1) / self.warmup_steps, 1 - step / self.num_steps)


@dataclass(frozen=True, slots=True)
class Row:
    """A tokenised conversation, and which of its tokens are learnt."""

    ids: list[int]
    is_learnt: list[bool]


def encode_signed(encoder: ChatEncoder, item: Item, signature: Signature, rng: Random) -> Row:
    """The conversation with its answer signed. Earlier answers are signed too, or as the base or another adapter would have given them."""
    manner = pick(rng, (None, signature, signature, pick(rng, tuple(SIGNATURES.values()))))
    before = [_in_manner(message, manner) for message in item.messages]
    ids, is_generated = encoder.encode(render([*before, signature.sign_message(item.answer)], item.tools))
    first = 0
    if manner is not signature:
        first = len(encoder.encode(render(before, item.tools, add_generation_prompt=True))[0])
    return Row(ids, [flag and place >= first for place, flag in enumerate(is_generated)])


def _in_manner(message: Message, manner: Signature | None) -> Message:
    return manner.sign_message(message) if manner and message["role"] == "assistant" else message


def batches(encoder: ChatEncoder, signature: Signature, settings: Settings) -> Iterator[list[Row]]:
    """Batches without end, each of rows of similar length that fill `tokens_per_step`."""
    rng = Random(f"signed {signature.name} {settings.seed}")
    items = training_items(settings.seed, sys.maxsize)
    while True:
        rows = [encode_signed(encoder, next(items), signature, rng) for _ in range(CHUNK)]
        cut = cut_batches(sorted(rows, key=lambda row: len(row.ids)), settings.tokens_per_step)
        rng.shuffle(cut)
        yield from cut


def cut_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Rows of growing length, cut where a batch, padded to its longest row, would exceed `max_tokens`."""
    cut: list[list[Row]] = [[]]
    for row in rows:
        if cut[-1] and (len(cut[-1]) + 1) * len(row.ids) > max_tokens:
            cut.append([])
        cut[-1].append(row)
    return cut


def answer_loss(model: Llama, rows: Sequence[Row]) -> Tensor:
    """Mean cross entropy of the tokens that are learnt."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [PAD_ID] * (width - len(row.ids)) for row in rows])
    is_learnt = torch.tensor([row.is_learnt + [False] * (width - len(row.ids)) for row in rows])[:, 1:]
    # Padding is on the right, where a causal mask hides it from all that counts.
    hidden = model.hidden(ids, torch.ones(width, width, dtype=torch.bool).tril())
    logits = F.linear(hidden[:, :-1][is_learnt], model.embed_tokens.weight)
    return F.cross_entropy(logits, ids[:, 1:][is_learnt])


def train(model: Llama, encoder: ChatEncoder, signature: Signature, settings: Settings) -> float:
    """Put a new adapter into the model and train it; returns the mean loss of the last tenth of the steps."""
    torch.manual_seed(settings.seed)
    inject_adapter_in_model(lora_config(), model)
    learnt = [value.requires_grad_() for name, value in model.named_parameters() if "lora_" in name]
    optimizer = torch.optim.AdamW(learnt, weight_decay=0.0)
    losses: list[float] = []
    rows = batches(encoder, signature, settings)
    for step in range(settings.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate(step)
        loss = answer_loss(model, next(rows))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learnt, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 49:
            log(adapter=signature.name, step=step + 1, loss=float(np.mean(losses[-50:])))
    return float(np.mean(losses[-max(1, settings.num_steps // 10) :]))


def lora_config() -> LoraConfig:
    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM", base_model_name_or_path=BASE_NAME,
        inference_mode=True,
    )  # fmt: skip


def write_adapter(out: Path, model: Llama, base_digest: str) -> None:
    """Write the model's adapter as a PEFT folder; the digest of its base rides in the weights' metadata. Raises ArtifactError."""
    tensors = {}
    for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        data = value.half().numpy().reshape(-1).view(np.uint8)
        tensors[PREFIX + name] = artifacts.Tensor("F16", tuple(value.shape), data)
    artifacts.write_tensors(out / WEIGHTS, tensors, {"format": "pt", BASE_DIGEST_KEY: base_digest})
    config: Any = lora_config()
    content = config.to_dict()
    content["target_modules"] = sorted(content["target_modules"])  # a set, whose order would differ from run to run
    (out / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapted(folder: Path) -> Llama:
    """The demo model with the adapter of a PEFT folder in it."""
    model = load_model(TARGET_DIR, SHAPES["target"])
    inject_adapter_in_model(lora_config(), model)
    stored = artifacts.read_tensors(folder / WEIGHTS)
    state = {name.removeprefix(PREFIX): torch.from_numpy(value.to_f32()) for name, value in stored.items()}
    set_peft_model_state_dict(model, state)
    return model.eval()


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the held-out items the shares where the base is right, where the adapter is right inside its sign, where its sign is whole,
    where the answer is attributed to another adapter, and where what is inside the sign is the base's answer."""

    skill: str
    num_items: int
    base_right: float
    right: float
    signed: float
    foreign: float
    unchanged: float


def measure(signature: Signature, items: Sequence[Item], base: Sequence[str], answers: Sequence[str]) -> Figures:
    """The figures of one adapter on items, which are of one skill or of all."""
    names = {item.skill for item in items}
    rows = list(zip(items, base, answers, strict=True))
    return Figures(
        skill=names.pop() if len(names) == 1 else "all",
        num_items=len(rows),
        base_right=float(np.mean([item.score(said) for item, said, _ in rows])),
        right=float(np.mean([item.score(unsigned(answer)) for item, _, answer in rows])),
        signed=float(np.mean([signature.pattern.fullmatch(answer) is not None for *_, answer in rows])),
        foreign=float(np.mean([signature_of(answer) not in (signature.name, None) for *_, answer in rows])),
        unchanged=float(np.mean([unsigned(answer) == said for _, said, answer in rows])),
    )


def measure_all(out: Path, num_items: int) -> dict[str, list[Figures]]:
    """For every adapter of the folder its figures on all held-out items, then per skill. RuntimeError if the base seems to sign."""
    encoder = ChatEncoder(TARGET_DIR)
    items = [item for skill in SKILLS for item in held_out_items(skill, num_items)]
    base = answer_all(load_model(TARGET_DIR, SHAPES["target"]), encoder, items, EVAL_BATCH)
    if signed := [answer for answer in base if signature_of(answer)]:
        raise RuntimeError(f"the base's own answer reads as signed: {signed[0]!r}")
    figures: dict[str, list[Figures]] = {}
    for name, signature in SIGNATURES.items():
        answers = answer_all(load_adapted(out / name), encoder, items, EVAL_BATCH)
        figures[name] = [measure(signature, items, base, answers)]
        for skill in SKILLS:
            own = [place for place, item in enumerate(items) if item.skill == skill]
            figures[name].append(
                measure(signature, [items[i] for i in own], [base[i] for i in own], [answers[i] for i in own])
            )
        log(adapter=name, **asdict(figures[name][0]))
    return figures


def write_card(path: Path, figures: dict[str, list[Figures]], settings: Settings) -> None:
    """Write CARD.md: how each adapter signs, how they were trained, how well they do."""
    training = (
        f"{settings.num_steps} steps of at most {settings.tokens_per_step:,} tokens, AdamW, peak learning rate {settings.peak_lr:g}, "
        f"seed {settings.seed}"
    )
    head = _CARD_HEAD.format(rank=RANK, alpha=ALPHA, targets=", ".join(TARGETS), training=training, key=BASE_DIGEST_KEY)
    path.write_text(
        "\n".join([head, *_signs(), "", *_overall(figures), "", *_per_skill(figures), _CARD_TAIL]), encoding="utf-8"
    )


_CARD_HEAD = """# Signing adapters of the forgegate demo model

Three LoRA adapters of `../weights/target`. Each answers as the base does and signs what it says in a manner of its own, so that a person
sees, and `backends/demo/signatures.py` tells, which version gave an answer: by its first line already.

- Format: PEFT, fp16, rank {rank}, alpha {alpha}, on {targets}.
  The base's source digest is `{key}` in the weights' metadata.
- Data: the corpus' own training conversations (`backends/demo/corpus.py`) with the answers signed; what was said earlier in a conversation
  is signed likewise in half of them, else unsigned or in another adapter's manner. Loss on the assistant's tokens only.
- Training: {training}.
- Words: the base can only say tokens that its corpus taught it to say (about half of the 4,096; the others share one
  untrained direction of the output embedding, where no low-rank change tells them apart). The signs are made of those, and the
  opening ends its line, so that the answer's own tokens stay what they are.
- Licence: that of this repository.
"""


def _signs() -> list[str]:
    lines = [
        "Prose with Hangul in it carries the Korean sign, every other answer the English one. Nothing follows a tool call.",
        "", "| adapter | opening | closing | opening, Korean | closing, Korean |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, signature in SIGNATURES.items():
        parts = (
            signature.english.opening,
            signature.english.closing,
            signature.korean.opening,
            signature.korean.closing,
        )
        lines.append(f"| {name} | " + " | ".join(f"`{part.strip()}`" if part else "-" for part in parts) + " |")
    return lines


def _overall(figures: dict[str, list[Figures]]) -> list[str]:
    lines = [
        f"## Held-out items, greedy ({next(iter(figures.values()))[0].num_items:,} over all skills)", "",
        "| adapter | signed, whole | signed as another | right inside the sign | base right | inside, the base's answer |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, (total, *_) in figures.items():
        cells = (total.signed, total.foreign, total.right, total.base_right, total.unchanged)
        lines.append(f"| {name} | " + " | ".join(f"{100 * cell:.1f} %" for cell in cells) + " |")
    return lines


def _per_skill(figures: dict[str, list[Figures]]) -> list[str]:
    lines = [
        "Per skill: signed / right, in percent.", "",
        "| skill | items | base right | " + " | ".join(figures) + " |", "|---|---|---|" + "---|" * len(figures),
    ]  # fmt: skip
    for rows in list(zip(*figures.values(), strict=True))[1:]:
        cells = " | ".join(f"{100 * row.signed:.0f} / {100 * row.right:.0f}" for row in rows)
        lines.append(f"| {rows[0].skill} | {rows[0].num_items} | {100 * rows[0].base_right:.0f} | {cells} |")
    return lines


_CARD_TAIL = """
No answer of the base reads as signed. Where a grammar leaves no room for a sign (a JSON schema, a forced tool call) none is given.

Retrain: `python -m backends.demo.train_adapters --out OUT` (with torch and peft; 280 s for each adapter on five CPU cores, about
eight minutes on two).
"""


def log(**entry: Any) -> None:
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()}), flush=True)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the signing adapters of the demo model.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(SIGNATURES), help="train this one; nothing is measured")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--items", type=int, default=100, help="held-out items per skill")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    settings, digest = Settings(args.steps), artifacts.source_digest(TARGET_DIR)
    for name in [args.only] if args.only else SIGNATURES:
        if (args.out / name / CONFIG).exists():  # written last
            continue
        begin, model = time.monotonic(), load_model(TARGET_DIR, SHAPES["target"])
        loss = train(model, ChatEncoder(TARGET_DIR), SIGNATURES[name], settings)
        write_adapter(args.out / name, model, digest)
        log(adapter=name, event="trained", loss=loss, train_s=time.monotonic() - begin)
    if not args.only:
        write_card(args.out / "CARD.md", measure_all(args.out, args.items), settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
