"""The table of keys: what an Axolotl user may write, what becomes of it, and which key a misspelt one was meant to be."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from finetune.recipe.document import Node
from finetune.recipe.findings import nearest
from finetune.recipe.honoured import HONOURED, Honoured
from finetune.recipe.noted import NOTED
from finetune.recipe.recipe import Data, Recipe
from finetune.recipe.refused import HARMLESS, REFUSED

ELSEWHERE = {
    "per_device_train_batch_size": "micro_batch_size",
    "train_batch_size": "micro_batch_size",
    "num_train_epochs": "num_epochs",
    "epochs": "num_epochs",
    "lr": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "max_seq_length": "sequence_len",
    "max_seq_len": "sequence_len",
    "max_length": "sequence_len",
    "cutoff_len": "sequence_len",
    "packing": "sample_packing",
    "lora_rank": "lora_r",
    "r": "lora_r",
    "rank": "lora_r",
    "target_modules": "lora_target_modules",
    "lora_target": "lora_target_modules",
    "finetuning_type": "adapter",
    "model_name_or_path": "base_model",
    "model_name": "base_model",
    "model": "base_model",
    "dataset": "datasets",
    "quantization_bit": "load_in_4bit",
    "attn_impl": "attn_implementation",
    "use_rslora": "peft_use_rslora",
    "run_name": "wandb_name",
    "val_size": "val_set_size",
    "eval_datasets": "test_datasets",
    "eval_dataset": "test_datasets",
    "max_epochs": "num_epochs",
    "gradient_accumulation": "gradient_accumulation_steps",
    "grad_accum": "gradient_accumulation_steps",
}
"""What Transformers, TRL, PEFT and LLaMA-Factory call it."""
_OFF = frozenset({"", "false", "no", "off", "none", "null", "~", "0", "0.0"})
_ASKED_BY_OFF = {
    **dict.fromkeys(("shuffle_merged_datasets", "peft_init_lora_weights"), frozenset({"false", "no", "off"})),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "device"), frozenset({"0", "0.0"})),
}
"""Keys for which such a word is what is refused."""
_WITHOUT_DEFAULT = frozenset({
    "base_model", "adapter", "lora_alpha", "lora_target_linear", "load_in_4bit", "output_dir", "datasets", "batch_size",
    "load_best_model_at_end", "eval_strategy", "evaluation_strategy", "save_strategy", "eval_steps", "save_steps", "evals_per_epoch",
    "saves_per_epoch", "hooks", "max_steps", "ewc_lambda", "ewc", "evaluation", "rule",
})  # fmt: skip
"""They follow from other keys, or stand for them."""
_WIDTH = 110


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table."""

    name: str
    status: str
    """`honoured`, `noted` or `refused`."""
    words: str
    takes: str = ""
    field: str = ""
    default: str = ""


def meant(name: str) -> str:
    """The key that an unknown one may be meant to be; empty where none is near."""
    plain = name.strip().lower().replace("-", "_")
    if plain in HONOURED or plain in NOTED or plain in REFUSED:
        return plain
    return ELSEWHERE.get(plain) or nearest(plain, HONOURED, 0.7) or nearest(plain, (*NOTED, *REFUSED), 0.8)


def asks_nothing(name: str, node: Node) -> bool:
    """Whether a refused key is given as false, as nothing, or as what is done anyway."""
    return is_off(node, HARMLESS.get(name, ()), _ASKED_BY_OFF.get(name, frozenset()))


def is_off(node: Node, harmless: Collection[str], asked_by_off: Collection[str] = ()) -> bool:
    """Whether it is false, nothing or `harmless`; of a list, and of keys with values, whether all values are."""
    if isinstance(node.value, str):
        text = node.value.strip()
        return (text.lower() in _OFF and text.lower() not in asked_by_off) or bool({text, text.lower()} & {*harmless})
    children = node.value if isinstance(node.value, list) else list(node.value.values())
    return all(is_off(child, harmless, asked_by_off) for child in children)


def entries() -> list[Entry]:
    """All keys, the honoured ones first in the order of a recipe, the others by name."""
    honoured = [
        Entry(key.name, "honoured", key.words, key.kind.words, key.field, _default(key)) for key in HONOURED.values()
    ]
    noted = [Entry(name, "noted", words) for name, words in sorted(NOTED.items())]
    return honoured + noted + [Entry(name, "refused", words) for name, words in sorted(REFUSED.items())]


def as_json() -> list[dict[str, str]]:
    return [dataclasses.asdict(entry) for entry in entries()]


def as_text() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "Keys of a recipe. They are Axolotl's where Axolotl has them."
    for entry in entries():
        if entry.status == "honoured":
            default = f" (default {entry.default})" if entry.default else ""
            yield f"\n{entry.name}: {entry.takes}{default}"
            yield from textwrap.wrap(entry.words, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    yield "\nAccepted, without effect:"
    yield from _grouped("noted")
    yield "\nRefused, unless they are empty or false:"
    yield from _grouped("refused")


def _grouped(status: str) -> Iterator[str]:
    """Keys that share their reason, together."""
    groups: dict[str, list[str]] = {}
    for entry in entries():
        if entry.status == status:
            groups.setdefault(entry.words, []).append(entry.name)
    for words, names in groups.items():
        yield ""
        yield from textwrap.wrap(
            ", ".join(names), _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        yield from textwrap.wrap(words, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _default(key: Honoured) -> str:
    """What it is where it is not given; empty where that follows from other keys."""
    if key.name == "train_on_inputs":
        return "false"
    value: Any = Recipe(Path(), Data(()), Path())
    for name in key.field.split(".") if key.field and key.name not in _WITHOUT_DEFAULT else ():
        value = getattr(value, name)
    return "" if isinstance(value, Recipe) else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | dict):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
