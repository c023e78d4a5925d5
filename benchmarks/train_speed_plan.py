"""What is measured: settings that all turns share, variants of the recipe, the order of turns. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLAIN = "plain"
OURS = "ours"
VARIANTS: Mapping[str, Mapping[str, str]] = {
    OURS: {},
    "micro-1": {"micro_batch_size": "1", "gradient_accumulation_steps": "4"},
    "micro-4": {"micro_batch_size": "4", "gradient_accumulation_steps": "1"},
    "sdpa": {"attn_implementation": "sdpa"},
    "no-liger": {"use_liger_kernel": "false"},
    "compiled": {"torch_compile": "true"},
    "keep-down": {"keep_outputs": "[down_proj]"},
    "keep-mlp": {"keep_outputs": "[down_proj, gate_proj, up_proj]"},
    "all-kept": {"gradient_checkpointing": "false"},
}
"""What each changes of the recipe. Four packs an update, which are about as many tokens as the plain set-up's sixteen rows."""
TURNS = (
    PLAIN,
    OURS,
    OURS,
    PLAIN,
    "keep-down",
    "micro-4",
    "keep-mlp",
    "no-liger",
    "sdpa",
    "all-kept",
    "micro-1",
    "compiled",
)
"""What matters most comes first; what is compared lies side by side, in both orders."""
HOOK, PROFILE_AT = "benchmarks.train_speed_profile:Profile", "FORGEGATE_PROFILE_AT"
"""The callback, and the variable that tells it how many updates it lets pass."""


@dataclass(frozen=True, slots=True)
class Plan:
    model: Path
    data: Path
    variants: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: VARIANTS)
    warm_up: int = 2
    counted: int = 6
    sequence_len: int = 2048
    rank: int = 16
    dropout: float = 0.0
    batch: int = 2
    accumulation: int = 8
    """Of the plain set-up: rows of a forward pass, forward passes of an update."""
    seed: int = 1

    @property
    def steps(self) -> int:
        return self.warm_up + self.counted

    def overrides(self, variant: str) -> Mapping[str, str]:
        return {} if variant == PLAIN else self.variants[variant]

    def as_dict(self) -> dict[str, Any]:
        """All but where things lie."""
        shown = {name: getattr(self, name) for name in Plan.__dataclass_fields__ if name not in ("model", "data")}
        return {**shown, "variants": {name: dict(given) for name, given in self.variants.items()}}


def recipe(plan: Plan, variant: str, is_profiled: bool) -> dict[str, Any]:
    """Of the keys that a recipe has. Every token is trained, as the plain set-up does it."""
    given: dict[str, Any] = {
        "base_model": str(plan.model), "datasets": [{"path": str(plan.data)}], "val_set_size": 0, "adapter": "qlora",
        "lora_r": plan.rank, "lora_alpha": 2 * plan.rank, "lora_dropout": plan.dropout, "lora_target_linear": True,
        "sequence_len": plan.sequence_len, "sample_packing": True, "train_on_inputs": True, "micro_batch_size": 2,
        "gradient_accumulation_steps": 2, "max_steps": plan.steps, "num_epochs": 100, "learning_rate": 2e-4,
        "lr_scheduler": "cosine", "optimizer": "paged_adamw_8bit", "bf16": "auto", "gradient_checkpointing": True,
        "logging_steps": 1, "report_to": "none", "seed": plan.seed,
    }  # fmt: skip
    hooks = {"hooks": {"callbacks": [HOOK]}} if is_profiled else {}
    return {**given, **hooks, **plan.overrides(variant)}


def recipe_text(plan: Plan, variant: str, is_profiled: bool) -> str:
    """YAML. What a variant sets is written as it was given."""
    own = plan.overrides(variant)
    values = recipe(plan, variant, is_profiled)
    return "".join(f"{name}: {value if name in own else json.dumps(value)}\n" for name, value in values.items())


def with_variants(given: Sequence[Sequence[str]]) -> dict[str, Mapping[str, str]]:
    """The known ones and those of the command line, each a name and `KEY=VALUE`s. Raises ValueError."""
    found = dict(VARIANTS)
    for name, *settings in given:
        if name == PLAIN:
            raise ValueError(f"--variant {name}: that is the set-up that variants are compared with")
        if wrong := next((text for text in settings if "=" not in text), None):
            raise ValueError(f"--variant {name}: {wrong!r} is no KEY=VALUE")
        found[name] = {key: value for key, _, value in (text.partition("=") for text in settings)}
    return found


def numbered(names: Sequence[str]) -> list[tuple[str, str]]:
    """(name, the name of its file): a name's second turn is another one than its first."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append((name, f"{name.replace(':', '-')}-{counts[name]}"))
    return found


def ratios(turns: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Each turn's tokens per second over those of the plain turn next to it in time; None where there is none."""
    plain = [place for place, turn in enumerate(turns) if turn.get("variant") == PLAIN and "tok_s" in turn]
    found: list[float | None] = []
    for place, turn in enumerate(turns):
        if not plain or "tok_s" not in turn:
            found.append(None)
            continue
        nearest = min(plain, key=lambda other: abs(other - place))
        found.append(round(turn["tok_s"] / turns[nearest]["tok_s"], 3))
    return found
