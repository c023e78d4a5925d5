"""Does the loss fall at all? Asked at growing intervals, answered only when the noise of the losses allows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

LOOK_EVERY = 20
MIN_LOSSES = 60
"""Some of them after the warm-up; a run that ends earlier is looked at once, at its end."""
MIN_LOSSES_WARM = 40
MIN_LOSSES_AT_END = 40
MIN_SHARE = 0.25
"""Of the run: slow falls are ordinary, too."""
SCALES = (10, 20, 40, 80, 160)
"""Losses at the start that later ones are held against: a quick fall shows in few of them."""
SURE = 3.0
"""Standard errors by which a fall counts as one."""
DOUBT = 2.0
"""Those by which a fall may be one."""
CERTAIN = 2.5
NOTABLE_SHARE = 0.04
"""Of the first losses: where a fall of that size would have shown, and none did, there is none."""
LEARNT = 0.1
"""A loss so small from the start has no room to fall."""
ROUNDING = 1e-4


class Falling:
    """Gathers losses until it knows. One verdict a run."""

    def __init__(self, warmup_steps: int, num_steps: int) -> None:
        self._warmup_steps = warmup_steps
        self._num_steps = num_steps
        self._num_warm = 0
        self._losses: list[float] = []
        self._is_settled = False

    def is_missing(self, loss: float, step: int) -> bool:
        """True once: when the losses so far rule a notable fall out."""
        if self._is_settled or not math.isfinite(loss):
            return False
        self._losses.append(loss)
        self._num_warm += step > self._warmup_steps
        if not self._is_due(step):
            return False
        verdict = falls(self._losses)
        self._is_settled = verdict is not None
        return verdict is False

    def first_and_last(self) -> tuple[float, float]:
        """Mean losses of the first and the latest steps."""
        width = len(self._losses) // 3
        return fmean(self._losses[:width]), fmean(self._losses[-width:])

    def _is_due(self, step: int) -> bool:
        count = len(self._losses)
        if step == self._num_steps:
            return count >= MIN_LOSSES_AT_END
        if step < MIN_SHARE * self._num_steps:
            return False
        return count >= MIN_LOSSES and self._num_warm >= MIN_LOSSES_WARM and count % LOOK_EVERY == 0


def falls(losses: Sequence[float]) -> bool | None:
    """Whether later losses are below the first ones; None where noise leaves it open."""
    start, third = fmean(losses[: SCALES[0]]), len(losses) // 3
    if start < LEARNT:
        return True
    compared = [_compare(losses, width) for width in (*(each for each in SCALES if each < third), third)]
    if any(fall > SURE * error + ROUNDING * start for fall, error in compared):
        return True
    if any(fall > DOUBT * error + ROUNDING * start for fall, error in compared):
        return None
    fall, error = compared[-1]
    return False if CERTAIN * error + max(0.0, fall) < NOTABLE_SHARE * start else None


def _compare(losses: Sequence[float], width: int) -> tuple[float, float]:
    """By how much the latest third is below the first `width`, and the standard error of that."""
    first, last = losses[:width], losses[-(len(losses) // 3) :]
    return fmean(first) - fmean(last), math.sqrt(variance(first) / len(first) + variance(last) / len(last))
