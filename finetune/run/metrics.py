"""The steps and evaluations of a run, as metrics.jsonl has them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.training.metrics import read

MIN_WEIGHT = 0.1
LOSSES_SMOOTHED = 5
"""In a run of few steps."""


@dataclass(frozen=True, slots=True)
class Metrics:
    steps: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Metrics:
        """Empty where there is no file yet. Raises OSError."""
        entries = read(path)
        return cls(
            [each for each in entries if each.get("event") == "step"],
            [each for each in entries if each.get("event") == "eval"],
        )

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one field, where it is a finite number."""
        pairs = [(each["step"], float(each[name])) for each in self.steps if _is_finite(each.get(name))]
        return [step for step, _ in pairs], [value for _, value in pairs]

    @property
    def best_eval(self) -> dict[str, Any] | None:
        known = [each for each in self.evals if _is_finite(each.get("loss"))]
        return min(known, key=lambda each: float(each["loss"])) if known else None

    @property
    def tok_s(self) -> float | None:
        """Real tokens a second over all steps but the first, which warms up."""
        timed = [each for each in self.steps if each.get("seconds") and each.get("num_tokens")]
        timed = timed[1:] or timed
        seconds = sum(each["seconds"] for each in timed)
        return sum(each["num_tokens"] for each in timed) / seconds if seconds else None


def smooth(values: list[float]) -> list[float]:
    """Exponentially, without the bias towards the first; less where there are few."""
    new = max(MIN_WEIGHT, min(1.0, LOSSES_SMOOTHED / max(1, len(values))))
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = (1 - new) * mean + new * value
        weight = (1 - new) * weight + new
        smoothed.append(mean / weight)
    return smoothed


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
