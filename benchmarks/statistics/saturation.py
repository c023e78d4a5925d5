"""Whether the load is more than the server carries: requests in flight and time to first token both keep growing.

The idea is GuideLLM's over-saturation constraint: a straight line through each series, and a margin of error of its
slope by Student's t; both slopes above 0 with their margins mean that the queue grows for as long as the load lasts.
Two things are different here. A queue wanders, which makes neighbouring samples alike and a margin that takes them for
independent far too small: the series are averaged over twenty equal slices of time first, and the margin is widened by
what the slices still have in common. And growth must be worth the word, a tenth of the mean over the window, as a long
run makes any slope significant. Of simulated M/M/1 queues that start empty and run for 120 s at 10 requests/s, 1 in 100
is called saturated at a load of 0.8, 5 at 0.9 (20 with the plain margin), 71 at 1.1 and 99 at 1.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.statistics.student import t_quantile

CONFIDENCE = 0.95
NUM_SLICES = 20
MIN_SLICES = 8
"""Slices that must hold samples, for a slope with a margin."""
MIN_GROWTH = 0.1
MIN_DURATION_S = 30.0
MAX_WINDOW_S = 120.0


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a series, per second."""

    slope: float
    margin: float
    """Half the two-sided interval at the confidence asked for."""
    growth: float
    """The line's rise over the window, as a share of the series' mean."""

    @property
    def is_rising(self) -> bool:
        """True when above 0 with its margin, and worth the word."""
        return self.slope - self.margin > 0 and self.growth > MIN_GROWTH


@dataclass(frozen=True, slots=True)
class Saturation:
    """Of a window of a run."""

    duration_s: float
    in_flight: Slope | None
    """None with too few samples."""
    ttft: Slope | None

    @property
    def is_saturated(self) -> bool:
        """True when both rise over at least 30 s. False also says: not shown."""
        is_long = self.duration_s >= MIN_DURATION_S
        return is_long and all(slope is not None and slope.is_rising for slope in (self.in_flight, self.ttft))


def saturation(
    in_flight: Sequence[tuple[float, float]], ttft: Sequence[tuple[float, float]], confidence: float = CONFIDENCE
) -> Saturation:
    """Both as (moment in seconds, value), in any order: the number of requests in flight when it changed or was read,
    and each request's ttft at its intended time. Only the last 120 s are looked at.
    """
    moments = [at for at, _ in (*in_flight, *ttft)]
    if not moments:
        return Saturation(0.0, None, None)
    end_s = max(moments)
    start_s = max(min(moments), end_s - MAX_WINDOW_S)
    slopes = (slope_of(series, start_s, end_s, confidence) for series in (in_flight, ttft))
    return Saturation(end_s - start_s, *slopes)


def slope_of(
    series: Sequence[tuple[float, float]], start_s: float, end_s: float, confidence: float = CONFIDENCE
) -> Slope | None:
    """Least squares through the means of twenty slices of the window. None with fewer than eight that hold samples."""
    points = _slices(series, start_s, end_s)
    num = len(points)
    if num < MIN_SLICES:
        return None
    mean_x, mean_y = (math.fsum(values) / num for values in zip(*points, strict=True))
    spread = math.fsum((x - mean_x) ** 2 for x, _ in points)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = [y - mean_y - slope * (x - mean_x) for x, y in points]
    variance = math.fsum(value * value for value in rest) / (num - 2) / _independent_share(rest)
    error = math.sqrt(variance / spread)
    growth = slope * (end_s - start_s) / mean_y if mean_y > 0 else 0.0
    return Slope(slope, error * t_quantile((1 + confidence) / 2, num - 2), growth)


def _independent_share(rest: Sequence[float]) -> float:
    """Of residuals each of which is like the one before it: (1 - r) / (1 + r) by their first autocorrelation."""
    squares = math.fsum(value * value for value in rest)
    if squares <= 0:
        return 1.0
    r = math.fsum(before * after for before, after in pairwise(rest)) / squares
    r = min(0.9, max(0.0, r + (1 + 4 * r) / len(rest)))  # with the bias that a fitted line gives it taken out
    return (1 - r) / (1 + r)


def _slices(series: Sequence[tuple[float, float]], start_s: float, end_s: float) -> list[tuple[float, float]]:
    width = (end_s - start_s) / NUM_SLICES
    kept: list[list[tuple[float, float]]] = [[] for _ in range(NUM_SLICES)]
    for at, value in series:
        if width > 0 and start_s <= at <= end_s:
            kept[min(NUM_SLICES - 1, int((at - start_s) / width))].append((at, value))
    return [_mean_point(points) for points in kept if points]


def _mean_point(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return math.fsum(at for at, _ in points) / len(points), math.fsum(value for _, value in points) / len(points)
