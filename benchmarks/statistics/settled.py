"""Whether an interval is narrow enough to be quoted, and what it would take if not."""

import math
from dataclasses import dataclass

from benchmarks.statistics.interval import Interval
from benchmarks.statistics.student import t_quantile

WIDTH_LIMIT = 0.05
"""Share of the estimate that the interval may reach to either side."""
MIN_REPEATS = 3
"""Fewer do not show how repeats differ."""


@dataclass(frozen=True, slots=True)
class Settling:
    """Of one result."""

    is_settled: bool
    relative_half_width: float
    """Infinite for an open interval."""
    limit: float
    num_repeats: int
    repeats_needed: int | None
    """In all, at the present length; None where nothing can be foretold (no width yet, or an estimate of 0)."""
    times_longer: float | None
    """What each repeat's length would have to be multiplied by instead; None where length does not help, or nothing can
    be foretold.
    """

    def more_s(self, spent_s: float) -> float | None:
        """Seconds still to measure, where all repeats so far took `spent_s`; 0 when settled, None where nothing can be
        foretold.
        """
        if self.is_settled:
            return 0.0
        ways = [times for times in (self.times_longer, self._times_repeats) if times is not None]
        return spent_s * (min(ways) - 1) if ways else None

    @property
    def _times_repeats(self) -> float | None:
        return None if self.repeats_needed is None else self.repeats_needed / self.num_repeats

    def sentence(self, spent_s: float) -> str:
        """One line for a reader."""
        if self.is_settled:
            return f"settled: +-{self.relative_half_width:.1%}"
        if math.isinf(self.relative_half_width):
            return "not settled: too few samples for an interval; measure longer"
        state = f"not settled: +-{self.relative_half_width:.1%}, wanted +-{self.limit:.0%}"
        more_s = self.more_s(spent_s)
        if more_s is None:
            return f"{state}; what it would take cannot be told"
        repeats = f"{self.repeats_needed} repeats in all" if self.repeats_needed else ""
        longer = f"{self.times_longer:.1f} times the length" if self.times_longer and self.times_longer > 1 else ""
        return f"{state}; about {more_s:,.0f} s more: {' or '.join(filter(None, (longer, repeats)))}"


def settling(interval: Interval, limit: float = WIDTH_LIMIT) -> Settling:
    """Wider than `limit` of the estimate to one side, or fewer than three repeats, is not settled.

    The width shrinks with the root of what is measured. Where repeats differ by more than their own noise, only their
    number counts, and t(n - 1) / sqrt(n) shrinks faster than the root while they are few.
    """
    width, num = interval.relative_half_width, interval.num_repeats
    is_settled = width <= limit and num >= MIN_REPEATS
    if is_settled or math.isinf(width):
        repeats = max(num, MIN_REPEATS) if is_settled else None
        return Settling(is_settled, width, limit, num, repeats, 1.0 if is_settled else None)
    factor = (width / limit) ** 2
    if interval.is_between_repeats and num > 1:
        return Settling(False, width, limit, num, _repeats_needed(interval, limit), None)
    repeats = max(MIN_REPEATS, math.ceil(num * factor - 1e-9))
    return Settling(False, width, limit, num, repeats, factor if num >= MIN_REPEATS else None)


def _repeats_needed(interval: Interval, limit: float) -> int:
    """The smallest number whose t interval is narrow enough, with the spread of the repeats as it is."""
    p, num = (1 + interval.level) / 2, interval.num_repeats
    spread = interval.relative_half_width * math.sqrt(num) / t_quantile(p, num - 1)
    needed = max(num, MIN_REPEATS)
    while spread * t_quantile(p, needed - 1) / math.sqrt(needed) > limit and needed < 10_000:
        needed += 1
    return needed
