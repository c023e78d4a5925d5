"""From data to drawing. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps `low` to `start` and `high` to `end`, linearly or by the logarithm; what lies outside is clipped."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (self._grown(each) for each in (self.low, self.high, min(max(value, self.low), self.high)))
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self, num: int = 5) -> list[float]:
        """Round numbers within, about so many."""
        return _decades(self.low, self.high) if self.is_log else _round_steps(self.low, self.high, num)

    def _grown(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def fitted(values: list[float], start: float, end: float, is_log: bool = False) -> Scale:
    """A scale that holds all values: a linear one from 0 on, a logarithmic one from a round number below the smallest that is positive."""
    if is_log:
        low = min((value for value in values if value > 0), default=1.0)
        return Scale(_round_below(low), _round_above(max(*values, 2 * low)), start, end, is_log=True)
    return Scale(min(0.0, *values, 0.0), max(*values, 0.0) or 1.0, start, end)


def _round_below(value: float) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * factor for factor in (5.0, 2.0, 1.0) if size * factor <= value * 1.0000001)


def _round_above(value: float) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    return max(value, next(size * factor for factor in (1.0, 2.0, 5.0, 10.0) if size * factor >= value * 0.9999999))


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    factors = tuple(range(1, 10)) if span < 0.7 else (1, 2, 5) if span < 2.5 else (1,)
    marks = [factor * 10.0**power for power in powers for factor in factors]
    return [round(mark, 12) for mark in marks if low * 0.999999 <= mark <= high * 1.000001]


def _round_steps(low: float, high: float, num: int) -> list[float]:
    rough = (high - low) / num
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * place, 12) for place in range(first, last + 1)]
