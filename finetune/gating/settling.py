"""How many items would settle what is undecided."""

from __future__ import annotations

import math

from finetune.gating.intervals import repeated, sample_of
from finetune.gating.judging import Levels, kept_chance, lost_chance
from finetune.gating.paired import Paired

MAX_ITEMS = 10_000_000
_ROUNDS = 40


def items_to_settle(paired: Paired, limit: float, levels: Levels) -> int | None:
    """Were the difference what it is now, and new items in new clusters like those that were seen; `limit` in points.

    None where the difference lies on the limit, or so near that MAX_ITEMS would not do.
    """
    sample = sample_of(paired.totals())
    is_above = paired.difference > limit
    chance, level = (kept_chance, levels.lower) if is_above else (lost_chance, levels.upper)
    low, high = 1.0, MAX_ITEMS / paired.num_items
    if high <= low or float(chance(repeated(sample, high), limit)) >= level:
        return None
    for _ in range(_ROUNDS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if float(chance(repeated(sample, middle), limit)) < level else (middle, high)
    return math.ceil(high * paired.num_items)
