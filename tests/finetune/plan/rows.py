"""Sets of rows by their lengths."""

from __future__ import annotations

import math
from random import Random

from finetune.plan.facts import DataFacts

_SPREAD = 0.8
"""Of the logarithm: half of the rows are between 0.6 and 1.7 times the median."""


def lognormal(num_rows: int, mean: int, limit: int, num_eval_rows: int = 0) -> DataFacts:
    """Rows as instruction sets have them: many short ones, a few long ones."""
    rng = Random(1)
    center = math.log(mean) - _SPREAD**2 / 2
    lengths = (min(limit, max(8, int(rng.lognormvariate(center, _SPREAD)))) for _ in range(num_rows))
    return DataFacts(tuple(lengths), num_eval_rows)
