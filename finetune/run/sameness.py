"""Which differences of two recipes make another run of it: a checkpoint of the one does not continue the other. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from finetune.recipe.recipe import Recipe

MATTERS = {
    "base": "base_model",
    "lora": "adapter",
    "lora.rank": "lora_r",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.targets": "lora_target_modules",
    "lora.use_rslora": "peft_use_rslora",
    "data.sources": "datasets",
    "data.eval_sources": "test_datasets",
    "data.eval_share": "val_set_size",
    "data.eval_rows": "val_set_size",
    "data.general": "general",
    "data.general_share": "general: share",
    "data.max_length": "sequence_len",
    "data.too_long": "excess_length_strategy",
    "data.assistant_only": "train_on_inputs",
    "data.loader": "hooks: loader",
    "ewc": "ewc_lambda",
    "ewc.strength": "ewc_lambda",
    "ewc.sources": "ewc",
    "ewc.num_rows": "ewc: rows",
    "steps.learning_rate": "learning_rate",
    "steps.schedule": "lr_scheduler",
    "steps.warmup_steps": "warmup_steps",
    "steps.warmup_ratio": "warmup_ratio",
    "steps.optimizer": "optimizer",
    "steps.weight_decay": "weight_decay",
    "steps.max_grad_norm": "max_grad_norm",
    "steps.num_epochs": "num_epochs",
    "steps.max_steps": "max_steps",
    "steps.loss": "hooks: loss",
    "memory.load_in_4bit": "load_in_4bit",
    "memory.dtype": "bf16, fp16",
    "memory.packing": "sample_packing",
    "seed": "seed",
}
"""Field -> what recipes call it."""
FREE = frozenset({
    "output_dir", "base_name", "trust_remote_code", "folder", "evaluation", "rule",
    "steps.micro_batch_size", "steps.gradient_accumulation_steps",
    "memory.gradient_checkpointing", "memory.keep_outputs", "memory.chunked_loss", "memory.attention", "memory.compile", "memory.liger",
})  # fmt: skip
"""How it is computed, not what is learned; so is all of `watch`. Of the batch only the product matters."""


def differences(old: Recipe, new: Recipe) -> list[str]:
    """In words, by the names that recipes use; empty where `new` continues `old`."""
    before, after = dict(flat(old)), dict(flat(new))
    found = [
        f"{name} was {_words(before.get(path))} and is {_words(after.get(path))}"
        for path, name in MATTERS.items()
        if before.get(path) != after.get(path)
    ]
    batches = (old.steps.effective_batch_size, new.steps.effective_batch_size)
    if batches[0] != batches[1]:
        found.append(f"micro_batch_size times gradient_accumulation_steps was {batches[0]} and is {batches[1]}")
    return found


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`steps.learning_rate` -> value, for every field that is no group of fields; files of data count as values."""
    for each in fields(value):
        inner = getattr(value, each.name)
        name = f"{path}{each.name}"
        if is_dataclass(inner) and not isinstance(inner, type):
            yield from flat(inner, f"{name}.")
        else:
            yield name, inner


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_words(each) for each in value) + "]"
    if is_dataclass(value) and hasattr(value, "path"):
        return str(value.path)
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value in (None, "") else str(value)
