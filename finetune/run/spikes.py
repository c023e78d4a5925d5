"""Losses that jump out of their own noise, and losses that rise and stay.

Counted are the losses that are told, each of one or more steps.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

TREND = 25
"""Losses whose median is what the next one is held against."""
MEMORY = 200
"""Losses whose own jumps say what is ordinary: with a few hard rows among easy ones, jumps are."""
MIN_STEPS = 50
SCALES = 8.0
MIN_SCALE = 0.04
"""Of the logarithm of the loss."""
MIN_FACTOR = 1.5
MIN_RISE = 0.3
ABOVE_KNOWN = math.log(1.25)
NOISE = 3.0
MAX_TOLD = 5
PAUSE = 10
LASTING = 25
DIVERGED_FACTOR = 2.0
ABOVE_START = 1.2


class Spikes:
    """Follows one run's losses."""

    def __init__(self) -> None:
        self._trend: deque[float] = deque(maxlen=TREND)
        self._jumps: deque[float] = deque(maxlen=MEMORY)
        self._tokens: deque[int] = deque(maxlen=TREND)
        self._latest: deque[tuple[int, float]] = deque(maxlen=LASTING)
        self._start: list[float] = []
        self._best = math.inf
        self._num_told = 0
        self._quiet_until = 0
        self._num_steps = 0

    @property
    def usual(self) -> float:
        """The loss of late."""
        return math.exp(median(self._trend))

    @property
    def best(self) -> float:
        """The lowest that the loss, smoothed, has been."""
        return self._best

    def is_spike(self, loss: float, num_tokens: int | None) -> bool:
        """Whether this loss jumps out; `num_tokens` of the step: of few tokens the mean is noisier."""
        if not math.isfinite(loss) or loss <= 0:
            return False
        self._num_steps += 1
        level = math.log(loss)
        is_one = len(self._jumps) >= MIN_STEPS and self._jumps_out(loss, level, num_tokens)
        if self._trend:
            self._jumps.append(level - median(self._trend))
        self._trend.append(level)
        if num_tokens:
            self._tokens.append(num_tokens)
        return is_one and self._may_tell()

    @property
    def rose_at(self) -> int:
        """Step since which the loss has been where it is, once it has diverged."""
        return self._latest[0][0]

    def has_diverged(self, loss: float, step: int) -> bool:
        """Whether the loss has been far above its best, and above its start, for `LASTING` losses."""
        if not math.isfinite(loss):
            return False
        if len(self._start) < LASTING:
            self._start.append(loss)
        self._latest.append((step, loss))
        if len(self._latest) < LASTING:
            return False
        lately = [each for _, each in self._latest]
        now = median(lately)
        limit = max(DIVERGED_FACTOR * self._best, ABOVE_START * median(self._start[:10]))
        self._best = min(self._best, now)
        return now > limit and min(lately) > self._best * MIN_FACTOR and now - self._best > MIN_RISE

    def _jumps_out(self, loss: float, level: float, num_tokens: int | None) -> bool:
        usual = median(self._trend)
        drift = median(self._jumps)
        scale = max(MIN_SCALE, 1.4826 * median(abs(each - drift) for each in self._jumps))
        if num_tokens and self._tokens:
            scale *= math.sqrt(max(1.0, median(self._tokens) / num_tokens))
        jump = level - usual
        return (
            jump > SCALES * scale
            and jump > max(self._jumps) + max(ABOVE_KNOWN, NOISE * scale)
            and loss > MIN_FACTOR * math.exp(usual)
            and loss - math.exp(usual) > MIN_RISE
        )

    def _may_tell(self) -> bool:
        if self._num_told >= MAX_TOLD or self._num_steps < self._quiet_until:
            return False
        self._num_told += 1
        self._quiet_until = self._num_steps + PAUSE
        return True
