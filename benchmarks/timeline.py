"""A run second by second: what was sent, what ended, what was under way, and how many tokens came. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import metrics
from benchmarks.record import Record

MAX_BINS = 60
WIDTHS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Timeline:
    """By bins of `width_s` from the run's start on. Rates per second; the last bin may reach beyond the run's end."""

    width_s: float
    sent: tuple[float, ...]
    """Requests due per second, by their intended time."""
    answered: tuple[float, ...]
    failed: tuple[float, ...]
    in_flight: tuple[float, ...]
    """Mean number of requests that were due and had not ended."""
    output_tps: tuple[float, ...]
    """A request's tokens are spread over its chunks by their length."""


def timeline(records: Sequence[Record], started_s: float, ended_s: float) -> Timeline:
    """Of one run, in at most MAX_BINS bins. Raises ValueError for a run without length."""
    if not ended_s > started_s:
        raise ValueError(f"a run from {started_s} to {ended_s} has no length")
    width_s = next((each for each in WIDTHS_S if (ended_s - started_s) / each <= MAX_BINS), WIDTHS_S[-1])
    sent, answered, failed, under_way, tokens = (
        _Bins(started_s, width_s, math.ceil((ended_s - started_s) / width_s)) for _ in range(5)
    )
    for record in records:
        sent.add(record.intended_s)
        (answered if record.is_ok else failed).add(record.end_s)
        under_way.spread(record.intended_s, record.end_s)
    for at_s, amount in metrics.token_arrivals(records):
        tokens.add(at_s, amount)
    rates = (each.per_second() for each in (sent, answered, failed, under_way, tokens))
    return Timeline(width_s, *rates)


class _Bins:
    """Amounts by time."""

    def __init__(self, start_s: float, width_s: float, num: int) -> None:
        self._start_s, self._width_s = start_s, width_s
        self._amounts = [0.0] * num

    def add(self, at_s: float, amount: float = 1.0) -> None:
        """All at once. What lies outside falls to the first or the last bin."""
        place = int((at_s - self._start_s) / self._width_s)
        self._amounts[min(max(place, 0), len(self._amounts) - 1)] += amount

    def spread(self, from_s: float, to_s: float) -> None:
        """The seconds between both, each where it lies."""
        low = max((from_s - self._start_s) / self._width_s, 0.0)
        high = min((to_s - self._start_s) / self._width_s, float(len(self._amounts)))
        for place in range(int(low), math.ceil(high)):
            self._amounts[place] += (min(high, place + 1) - max(low, place)) * self._width_s

    def per_second(self) -> tuple[float, ...]:
        return tuple(round(amount / self._width_s, 6) for amount in self._amounts)
