"""Where a run is in its steady state: after the warm-up, before the cool-down.

MSER (K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69, 1997)
leaves out the first d samples, with d such that the standard error of the mean of the others is least:

    d = argmin  sum over i > d of (y_i - mean of those)^2 / (n - d)^2

MSER-5 (White, Cobb, Spratt, 2000) takes means of five samples for y, which a single stray sample cannot lead astray. A
least value in the second half says that the series has not settled within itself: too short, or still drifting.

Taken as it is, that flatters latencies: a queue's rare bursts are much of its spread, so one near an end would be cut
off as if it were another state: of simulated M/M/1 queues, steady all along, 1,000 waits each, the windows looked 5 %
faster than the truth at a load of 0.5 and 16 % at 0.8. So y are ranks, in which a burst weighs little and a warm-up as
much as it is long, and a cut is made only where the mean of what it leaves out lies three standard errors from what it
keeps: then it is 1 % and 8 %. It is less the longer the run; figures of the whole run belong beside those of a window.

A run has an end too: its queue empties when nothing more is sent. The same error decides there, over both cuts
together, with at most a fifth cut off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from benchmarks.statistics.blocklength import block_length

BATCH = 5
MIN_BATCHES = 20
"""Fewer say nothing about where a warm-up ends."""
MAX_BATCHES = 300
"""Of longer series more than five samples make a batch, so that the work stays small."""
MAX_COOL_DOWN = 0.2
"""Share of the run that a cool-down may be."""
MIN_STANDARD_ERRORS = 3.0
"""How far what is left out must lie from what is kept."""


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a run, in seconds of its clock: from `start_s`, up to but without `end_s`."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s

    def holds(self, at_s: float) -> bool:
        """True when the moment lies within."""
        return self.start_s <= at_s < self.end_s


def truncation(series: Sequence[float]) -> int | None:
    """Index of the first sample of the steady state. None where the series is too short to tell (fewer than 100
    samples) or does not settle in its first half.
    """
    found = _kept(series, is_end_fixed=True)
    return None if found is None else found[0]


def steady_window(times_s: Sequence[float], series: Sequence[float]) -> Window | None:
    """The window between warm-up and cool-down of a series with ascending times: what is left out at either end is
    chosen together, because a slow end would otherwise be taken for what follows a long warm-up. None where
    the run does not settle in its first half, or has fewer than 100 samples.

    Latency by its send time suits an open loop; tokens of equal slices of time suit both kinds.
    """
    if len(times_s) != len(series):
        raise ValueError(f"{len(times_s)} times beside {len(series)} samples")
    found = _kept(series, is_end_fixed=False)
    if found is None:
        return None
    first, last = found
    return Window(times_s[first], times_s[last] if last < len(times_s) else math.nextafter(times_s[-1], math.inf))


def _kept(series: Sequence[float], is_end_fixed: bool) -> tuple[int, int] | None:
    """From which sample and up to which without it."""
    batch = max(BATCH, math.ceil(len(series) / MAX_BATCHES))
    ranks = _ranks(series)
    batches = [math.fsum(ranks[i : i + batch]) / batch for i in range(0, len(ranks) - batch + 1, batch)]
    num = len(batches)
    if num < MIN_BATCHES:
        return None
    centre = math.fsum(batches) / num  # the spread does not depend on it, rounding does
    totals = list(accumulate((value - centre for value in batches), initial=0.0))
    squares = list(accumulate(((value - centre) ** 2 for value in batches), initial=0.0))

    def error(first: int, last: int) -> float:
        left, total = last - first, totals[last] - totals[first]
        return max(0.0, squares[last] - squares[first] - total * total / left) / (left * left)

    least = num // 4  # a handful of batches may be alike by chance, and would win with no spread at all
    ends = [num] if is_end_fixed else range(num, math.ceil(num * (1 - MAX_COOL_DOWN)) - 1, -1)
    cuts = [(first, last) for last in ends for first in range(last - least + 1)]
    first, last = min(cuts, key=lambda cut: error(*cut))  # of equals the one that keeps most comes first
    noise = block_length(batches[first:last]).long_run_variance
    kept = (totals[last] - totals[first]) / (last - first)
    if not _is_other(totals[first], first, kept, noise):
        first = 0
    if not _is_other(totals[num] - totals[last], num - last, kept, noise):
        last = num
    if first > num / 2:
        return None
    return first * batch, len(series) if last == num else last * batch


def _ranks(series: Sequence[float]) -> list[float]:
    """From 0 to 1; equal samples share the middle of theirs."""
    order = sorted(range(len(series)), key=series.__getitem__)
    found = [0.0] * len(order)
    below = 0
    for _, same in groupby(order, key=series.__getitem__):
        indices = list(same)
        for index in indices:
            found[index] = (below + len(indices) / 2) / len(order)
        below += len(indices)
    return found


def _is_other(total: float, num: int, kept: float, noise: float) -> bool:
    """Whether batches that were left out are another state, and not only restless: by their mean's standard error."""
    return num > 0 and abs(total / num - kept) > MIN_STANDARD_ERRORS * math.sqrt(noise / num)


def filled_window(first_tokens_s: Sequence[float], ends_s: Sequence[float], concurrency: int) -> Window | None:
    """The window of a closed loop in which all its streams were at work, for runs too short for MSER (the ML.ENERGY
    benchmark's rule): from the first token of the `concurrency`-th request until all but `concurrency` have ended. None
    where there is no such time.
    """
    if concurrency < 1:
        raise ValueError(f"no streams: {concurrency}")
    if len(first_tokens_s) < concurrency or len(ends_s) <= concurrency:
        return None
    start_s, end_s = sorted(first_tokens_s)[concurrency - 1], sorted(ends_s)[-concurrency - 1]
    return Window(start_s, end_s) if start_s < end_s else None
