"""What may be lost, and how sure one has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune.gating.errors import GateUnusable

MAX_DROP, FORGETTING, CONFIDENCE = 3.0, 5.0, 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """Points of 100. Raises GateUnusable for limits that cannot be."""

    max_drop: Mapping[str, float] | float = MAX_DROP
    """That a skill may lose, and under `non-inferior` the task; by name, others MAX_DROP."""
    forgetting: float = FORGETTING
    """What a dropped skill lost is forgotten from here on."""
    confidence: float = CONFIDENCE
    """Of each one-sided bound, over all looks."""

    def __post_init__(self) -> None:
        named = self.max_drop if isinstance(self.max_drop, Mapping) else {"": self.max_drop}
        for name, drop in named.items():
            if not 0 < drop < 100:
                where = f"max_drop of {name}" if name else "max_drop"
                raise GateUnusable(f"{where} is {drop:g}: points that may be lost lie between 0 and 100")
        if not 0 < self.forgetting < 100:
            raise GateUnusable(f"forgetting is {self.forgetting:g}: points lie between 0 and 100")
        if not 0.5 < self.confidence < 1:
            raise GateUnusable(f"confidence is {self.confidence:g}: it lies between 0.5 and 1")

    def drop_of(self, name: str) -> float:
        return self.max_drop.get(name, MAX_DROP) if isinstance(self.max_drop, Mapping) else self.max_drop
