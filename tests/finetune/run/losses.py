"""Loss curves: ordinary noisy ones and sick ones, from a seed; and how the guards see them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from finetune.recipe.recipe import Steps
from finetune.run.finding import Finding
from finetune.run.guards import Watch


def ordinary(rng: random.Random, num_steps: int, noise: float) -> list[float]:
    """Falls from `start` to `end`, quickly or slowly, each loss with lognormal noise."""
    start = rng.uniform(0.8, 3.5)
    end = start * rng.uniform(0.15, 0.85)
    pace = num_steps * rng.uniform(0.03, 0.6)
    return [(end + (start - end) * math.exp(-step / pace)) * math.exp(rng.gauss(0, noise)) for step in range(num_steps)]


def with_hard_rows(rng: random.Random, losses: Sequence[float], share: float, factor: float) -> list[float]:
    """General rows among rows of one form: few losses are always far above the others."""
    return [loss * factor if rng.random() < share else loss for loss in losses]


def flat(rng: random.Random, num_steps: int, noise: float) -> list[float]:
    level = rng.uniform(0.8, 3.5)
    return [level * math.exp(rng.gauss(0, noise)) for _ in range(num_steps)]


def steps(losses: Iterable[float], **fields: Any) -> Iterator[dict[str, Any]]:
    for number, loss in enumerate(losses, 1):
        yield {
            "event": "step", "step": number, "loss": loss, "grad_norm": 1.0, "num_tokens": 4000, "num_trained_tokens": 1000,
            "peak_bytes": 5 << 30, "total_bytes": 24 << 30, "rows": [number * 10, number * 10 + 1], **fields,
        }  # fmt: skip


def findings(
    events: Iterable[dict[str, Any]], recipe: Steps | None = None, dtype: str = "bfloat16", num_steps: int = 0
) -> list[Finding]:
    watch = Watch(recipe or Steps(), dtype, num_steps)
    return [found for event in events if (found := watch.look(event)) is not None]
