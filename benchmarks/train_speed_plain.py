"""A script of its own: QLoRA as guides of Hugging Face's libraries write it, told update by update.

python -m benchmarks.train_speed_plain --model DIR --data FILE.jsonl --steps 8 --out DIR

TRL's SFTTrainer, NF4 with double quantisation, prepare_model_for_kbit_training (embeddings, norms and head in float32), adapters of rank 16
on all linear layers, batches padded to their longest row, gradient checkpointing, the paged 8-bit AdamW, bf16, sdpa. On a CPU: float32 and
the 32-bit AdamW. Standard output has one JSON object a line, named as `forgegate train --json` names them:
    start {attention, device, dtype, num_trainable}, step {step, loss, seconds, num_tokens, num_padding, peak_bytes}, done {peak_bytes}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.train_speed_profile import Profile

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION = "sdpa"
IS_GPU = torch.cuda.is_available()
DTYPE = torch.bfloat16 if IS_GPU else torch.float32
_events = sys.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Libraries may print what they like: it goes to standard error."""
    options = _parse(argv)
    with contextlib.redirect_stdout(sys.stderr):
        trainer, tokens = _trainer(options)
        trained = sum(value.numel() for value in trainer.model.parameters() if value.requires_grad)
        device = torch.cuda.get_device_name() if IS_GPU else "cpu"
        tell(
            "start", attention=ATTENTION, device=device, dtype=str(DTYPE).removeprefix("torch."), num_trainable=trained
        )
        tokens.rest()
        trainer.train()
        tell("done", peak_bytes=peak_bytes())
    return 0


def tell(event: str, **content: Any) -> None:
    print(json.dumps({"event": event, **content}), file=_events, flush=True)


def peak_bytes() -> int:
    """Of tensors on a GPU; on a CPU of the process."""
    if IS_GPU:
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


class Tokens(TrainerCallback):  # type: ignore[misc]
    """Counts what goes into the model, and the time between one update's loss and the next one's."""

    def __init__(self) -> None:
        self._real: list[torch.Tensor] = []
        self._shown = 0
        self._began_s = time.monotonic()

    def rest(self) -> None:
        """The clock begins anew."""
        self._began_s = time.monotonic()

    def on_forward(self, module: Any, args: Any, given: dict[str, Any]) -> None:
        """A hook of the model's; sums stay on the device until the update is told, so that nothing waits for them."""
        self._real.append(given["attention_mask"].sum())
        self._shown += given["input_ids"].numel()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        real = int(torch.stack(self._real).sum())
        tell(
            "step", step=state.global_step, loss=logs["loss"], seconds=round(time.monotonic() - self._began_s, 4),
            num_tokens=real, num_padding=self._shown - real, peak_bytes=peak_bytes(),
        )  # fmt: skip
        self._real, self._shown = [], 0
        self.rest()


def _trainer(options: argparse.Namespace) -> tuple[Any, Tokens]:
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokens = Tokens()
    trainer = SFTTrainer(
        model=_model(options),
        args=_settings(options),
        train_dataset=load_dataset(
            "json", data_files=str(options.data), split="train", cache_dir=str(options.out / "cache")
        ),
        processing_class=tokenizer,
        callbacks=[*([Profile()] if options.profile else []), tokens],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.model.register_forward_pre_hook(tokens.on_forward, with_kwargs=True)
    return trainer, tokens


def _model(options: argparse.Namespace) -> Any:
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=DTYPE
    )
    model = AutoModelForCausalLM.from_pretrained(
        options.model, quantization_config=four_bits, dtype=DTYPE, attn_implementation=ATTENTION, local_files_only=True,
        device_map={"": "cuda:0" if IS_GPU else "cpu"},
    )  # fmt: skip
    lora = LoraConfig(
        r=options.rank, lora_alpha=2 * options.rank, lora_dropout=options.dropout, target_modules=TARGETS, bias="none",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(prepare_model_for_kbit_training(model), lora)


def _settings(options: argparse.Namespace) -> Any:
    return SFTConfig(
        output_dir=str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        gradient_accumulation_steps=options.accumulation,
        max_length=options.sequence_len,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        optim="paged_adamw_8bit" if IS_GPU else "adamw_torch",
        bf16=IS_GPU,
        use_cpu=not IS_GPU,
        gradient_checkpointing=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=options.seed,
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speed_plain", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True)
    add("--data", type=Path, required=True)
    add("--out", type=Path, required=True)
    add("--steps", type=int, required=True)
    add("--batch", type=int, default=2)
    add("--accumulation", type=int, default=8)
    add("--sequence-len", type=int, default=2048)
    add("--rank", type=int, default=16)
    add("--dropout", type=float, default=0.0)
    add("--seed", type=int, default=1)
    add("--profile", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
