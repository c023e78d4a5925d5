"""What the rules look at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from backends.adapter.base import Base
from backends.adapter.patterns import Match, match
from backends.adapter.weights import FLOATS, Entry, Weights

ENGINES = {"llamacpp": "llama.cpp", "vllm": "vLLM"}
PREFIX = "base_model.model."
"""PEFT writes it before the base model's own names."""
_FACTOR = re.compile(rf"{re.escape(PREFIX)}(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


@dataclass(frozen=True)
class Subject:
    """An upload beside the base that it must fit, and the engine kinds that shall serve it."""

    config: Mapping[str, Any]
    weights: Weights
    base: Base
    engines: tuple[str, ...]
    declared: Mapping[str, str]
    """Base source digests that the upload itself tells, by where it does."""

    @cached_property
    def factors(self) -> dict[str, dict[str, Entry]]:
        """Module -> `A`, `B` -> what is stored."""
        found: dict[str, dict[str, Entry]] = {}
        for name, entry in self.weights.entries.items():
            if match := _FACTOR.fullmatch(name):
                found.setdefault(match["module"], {})[match["factor"]] = entry
        return found

    @cached_property
    def others(self) -> list[str]:
        """Names of tensors that are no factor of a LoRA."""
        return [name for name in self.weights.entries if not _FACTOR.fullmatch(name)]

    @cached_property
    def peaks(self) -> dict[str, float]:
        """Tensor -> its largest magnitude, NaN or infinite where one of its values is; of tensors that hold floats."""
        entries = [entry for factors in self.factors.values() for entry in factors.values() if entry.dtype in FLOATS]
        return {
            entry.name: float(np.abs(self.weights.tensor(entry.name).to_f32()).max(initial=0.0)) for entry in entries
        }

    @cached_property
    def matches(self) -> dict[str, Match]:
        """Of its modules, and of those of the base with the same last names. The configuration must be sound."""
        lasts = {module.rsplit(".", 1)[-1] for module in self.factors}
        siblings = {module for module in self.base.modules if module.rsplit(".", 1)[-1] in lasts}
        return {module: match(self.config, module) for module in sorted(siblings | self.factors.keys())}

    @property
    def engine_words(self) -> str:
        return " and ".join(ENGINES[engine] for engine in self.engines)

    def number(self, key: str, default: Any) -> Any:
        value = self.config.get(key, default)
        return default if value is None else value


def tensor_name(module: str, factor: str) -> str:
    """`factor` is A or B."""
    return f"{PREFIX}{module}.lora_{factor}.weight"
