"""Intervals for means, ratios and percentiles of autocorrelated series, from at least one repeat of a run and better
three.

Within a repeat: circular block bootstrap (Politis and Romano, 1992), blocks as long as Politis and White choose
(blocklength.py), because neighbouring requests share a batch and a queue, and a bootstrap of single samples would take
them for independent ones. Between repeats: they are the outer clusters. A restart, another placement or a warmer
machine moves a whole repeat, and no block inside it shows that.

Everything is a ratio of sums R = sum(num) / sum(den), resampled through its residuals num - R * den, which is exact for
a mean and the usual first order for a ratio:

    mean         num = sample, den = 1
    ratio        any two series side by side: tokens and seconds, or a request's latency on B and the same request's on A
    percentile   num = 1 where the sample is <= the sample percentile, den = 1; the interval of that share is read back
                 through the sample distribution (Woodruff, J. Am. Stat. Assoc. 47, 1952)

Blocks lose what is correlated across their ends, so replicates are scaled to the long-run variance where that is
larger. They are taken on a scale on which the estimate is nearly symmetric, log for positive ratios and logit for
shares, and stretched:

    within repeats    t(1.5 * blocks - repeats) / z * replicates         for the few blocks that they come from
    between repeats   +- t(repeats - 1) * spread / sqrt(repeats)         where that spread is more than the replicates'

Resampling three repeats as if they were many holds the truth in 75 % at nominal 95 % where they differ: their spread
needs t with two degrees of freedom. Where it is no more than the noise inside explains, the repeats are one long run.
`coverage.py` holds all of this against known truths. It stays within 92 to 98 % for means, ratios and p90 from a few
hundred samples a repeat on; far out in a queue's tail it takes more, as there everything hangs on few bursts: the p99
of M/M/1 times at a load of 0.5 is held in 92 % with 3 x 3,000 samples, in 94 % with 3 x 6,000.
"""

import math
import operator
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from benchmarks.statistics.blocklength import block_length
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.student import t_quantile

LEVEL = 0.95
NUM_REPLICATES = 1000
MAX_CELLS = 1000
"""A repeat is cut into at most so many runs of consecutive samples, and blocks are made of those: a million cost what a
thousand do.
"""
MIN_TAIL_SAMPLES = 10
"""Fewer independent samples beyond a percentile say next to nothing about it: no interval. Of samples that depend on each other
those beyond come in bursts, and it takes up to twice as many: with ten, the p99 of M/M/1 times at a load of 0.7 was held in 77 %.
"""

Repeats = Sequence[Sequence[float]]
"""One series a repeat, in the order of time."""


@dataclass(frozen=True, slots=True)
class _Repeat:
    """Sums over the cells of one repeat."""

    nums: list[float]
    dens: list[float]
    num: float
    den: float


@dataclass(frozen=True, slots=True)
class _Deviations:
    """From the estimate to the interval's ends, on the transformed scale."""

    low: float
    high: float
    num_blocks: float
    is_between_repeats: bool


def mean(repeats: Repeats, *, level: float = LEVEL, num_replicates: int = NUM_REPLICATES, seed: int = 0) -> Interval:
    """Of all samples of all repeats; of rates, give the counts of equal slices of time. Raises ValueError without
    samples.
    """
    return ratio(repeats, [[1.0] * len(one) for one in repeats], level=level, num_replicates=num_replicates, seed=seed)


def ratio(
    numerators: Repeats,
    denominators: Repeats,
    *,
    level: float = LEVEL,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> Interval:
    """sum(numerators) / sum(denominators), sample by sample side by side: resampled together, so that what moves both
    cancels out.

    Raises ValueError where the shapes differ, or nothing is there to divide by.
    """
    runs = [_repeat(nums, dens) for nums, dens in zip(numerators, denominators, strict=True) if nums]
    den = math.fsum(run.den for run in runs)
    if not runs or any(run.den <= 0 for run in runs):
        raise ValueError("nothing to divide by: no samples, or denominators that sum to 0")
    estimate = math.fsum(run.num for run in runs) / den
    # A rate may be 0 in a whole repeat; then there is no log of it.
    is_positive = estimate > 0 and all(run.num > 0 for run in runs)
    scale = _LOG if is_positive else _IDENTITY
    found = _deviations(runs, estimate, scale, level, num_replicates, random.Random(seed))
    low, high = (scale.back(scale.forward(estimate) + step) if step else estimate for step in (found.low, found.high))
    num = sum(map(len, numerators))
    return Interval(estimate, low, high, level, num, len(runs), found.num_blocks, found.is_between_repeats)


def percentile(
    repeats: Repeats, q: float, *, level: float = LEVEL, num_replicates: int = NUM_REPLICATES, seed: int = 0
) -> Interval | None:
    """The q-th quantile, 0 < q < 1, of all samples of all repeats, interpolated as `metrics.percentile` does. None with
    fewer than ten samples beyond it, or so many that depend on each other as to be worth less than ten to twenty; an end is
    None where the samples do not reach as far as the interval.
    """
    if not 0 < q < 1:
        raise ValueError(f"q is not between 0 and 1: {q}")
    ordered = sorted(value for one in repeats for value in one)
    num = len(ordered)
    tail = num * min(q, 1 - q) + 1e-9
    if tail < MIN_TAIL_SAMPLES:
        return None
    estimate = _at(ordered, q)
    if ordered[0] == ordered[-1]:
        return Interval(estimate, estimate, estimate, level, num, sum(map(bool, repeats)), float(num))
    for_one = _samples_for_one(repeats, ordered)
    if tail / for_one < MIN_TAIL_SAMPLES * min(2.0, for_one):
        return None
    runs, share = _below(repeats, ordered, estimate)
    found = _deviations(runs, share, _logit_scale(num), level, num_replicates, random.Random(seed))
    centre = math.log(q / (1 - q))
    low_share, high_share = (1 / (1 + math.exp(step - centre)) for step in (found.high, found.low))
    low = _at(ordered, low_share) if low_share * num >= 1 else None
    high = _at(ordered, high_share) if (1 - high_share) * num >= 1 else None
    return Interval(estimate, low, high, level, num, len(runs), found.num_blocks, found.is_between_repeats)


def _samples_for_one(repeats: Repeats, ordered: Sequence[float]) -> float:
    """How many samples tell as much as one independent one. From those below the median: those beyond a percentile come
    in bursts, and where there have been few bursts by chance, the percentile and its spread would both look small.
    """
    runs, share = _below(repeats, ordered, _at(ordered, 0.5))
    variance = math.fsum(len(run.nums) * block_length(_residuals(run)).long_run_variance for run in runs)
    return max(1.0, variance / (len(ordered) * share * (1 - share)))


def _below(repeats: Repeats, ordered: Sequence[float], limit: float) -> tuple[list[_Repeat], float]:
    """Which samples are not above a limit, and their share: neither 0 nor 1 unless all samples are the same."""
    holds = operator.le if limit < ordered[-1] else operator.lt  # many may share the largest value
    runs = [_repeat([float(holds(value, limit)) for value in one], [1.0] * len(one)) for one in repeats if one]
    return runs, math.fsum(run.num for run in runs) / len(ordered)


def _at(ordered: Sequence[float], q: float) -> float:
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


@dataclass(frozen=True, slots=True)
class _Scale:
    forward: Callable[[float], float]
    back: Callable[[float], float]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


_LOG = _Scale(_log, math.exp)
_IDENTITY = _Scale(float, float)


def _logit_scale(num: int) -> _Scale:
    """Of shares of `num` samples; 0 and 1 stand for half a sample, as a share of none is finite evidence only."""
    edge = 0.5 / num

    def forward(share: float) -> float:
        inside = min(max(share, edge), 1 - edge)
        return math.log(inside / (1 - inside))

    return _Scale(forward, float)


def _repeat(nums: Sequence[float], dens: Sequence[float]) -> _Repeat:
    if len(nums) != len(dens):
        raise ValueError(f"{len(nums)} numerators beside {len(dens)} denominators")
    cells_n, cells_d = _cells(nums), _cells(dens)
    return _Repeat(cells_n, cells_d, math.fsum(cells_n), math.fsum(cells_d))


def _cells(series: Sequence[float]) -> list[float]:
    num = len(series)
    if num <= MAX_CELLS:
        return list(series)
    edges = [num * i // MAX_CELLS for i in range(MAX_CELLS + 1)]
    return [math.fsum(series[low:high]) for low, high in pairwise(edges)]


def _deviations(
    runs: Sequence[_Repeat], estimate: float, scale: _Scale, level: float, num_replicates: int, rng: random.Random
) -> _Deviations:
    den = math.fsum(run.den for run in runs)
    draws, num_blocks = [0.0] * num_replicates, 0.0
    for run in runs:
        sums, blocks = _resampled(run, num_replicates, rng)
        draws = [total + one for total, one in zip(draws, sums, strict=True)]
        num_blocks += blocks
    centre = scale.forward(estimate)
    steps = sorted(max(scale.forward(estimate + draw / den) - centre, -_FARTHEST) for draw in draws)
    within = statistics.pstdev(steps)
    between = _between(runs, scale)
    alpha = (1 - level) / 2
    # From overlapping blocks a variance has half as many degrees of freedom again as there are blocks (Meketon and
    # Schmeiser, "Overlapping batch means", 1984).
    t_within = t_quantile(1 - alpha, max(1, math.floor(1.5 * num_blocks) - len(runs)))
    t_between = t_quantile(1 - alpha, len(runs) - 1) if len(runs) > 1 else 0.0
    if between > within:
        margin = max(t_between * between, t_within * within)
        return _Deviations(-margin, margin, num_blocks, between > within * _chance_limit(len(runs)))
    stretch = t_within / t_quantile(1 - alpha, math.inf)
    return _Deviations(stretch * _at(steps, alpha), stretch * _at(steps, 1 - alpha), num_blocks, False)


def _chance_limit(num_repeats: int) -> float:
    """How many times its noise the spread of repeats may be by chance, once in twenty: the root of chi-squared over its
    degrees of freedom (Wilson and Hilferty's approximation).
    """
    part = 2 / (9 * (num_repeats - 1))
    return math.pow(1 - part + _Z_95 * math.sqrt(part), 1.5)


_Z_95 = statistics.NormalDist().inv_cdf(0.95)
_FARTHEST = 50.0
"""Stands for the logarithm of 0."""


def _between(runs: Sequence[_Repeat], scale: _Scale) -> float:
    """Standard error of the estimate by the repeats' own estimates."""
    if len(runs) < 2:
        return 0.0
    return statistics.stdev(scale.forward(run.num / run.den) for run in runs) / math.sqrt(len(runs))


def _residuals(run: _Repeat) -> list[float]:
    """Of every cell, around the repeat's own estimate."""
    own = run.num / run.den
    return [num - own * den for num, den in zip(run.nums, run.dens, strict=True)]


def _resampled(run: _Repeat, num_replicates: int, rng: random.Random) -> tuple[list[float], float]:
    """Sums of the residuals over resampled blocks, and the number of blocks."""
    residuals = _residuals(run)
    found = block_length(residuals)
    num, length = len(residuals), found.length
    ends = list(accumulate(residuals + residuals[: length - 1], initial=0.0))
    blocks = list(map(operator.sub, ends[length:], ends))
    num_blocks = max(1, round(num / length))
    variance = num_blocks * math.fsum(block * block for block in blocks) / num
    if variance == 0:
        return [0.0] * num_replicates, num / length
    # Whole blocks do not make up the length, and what is correlated across their ends is lost to them, but not to the
    # long-run variance.
    wanted = num * max(found.long_run_variance, variance / (num_blocks * length))
    factor = math.sqrt(wanted / variance)
    return [factor * sum(rng.choices(blocks, k=num_blocks)) for _ in range(num_replicates)], num / length
