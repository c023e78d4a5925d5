"""How long the blocks of a block bootstrap must be: Politis and White's automatic choice.

D. Politis, H. White, "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23 (2004),
with the correction of A. Patton, D. Politis, H. White, Econometric Reviews 28 (2009). For the circular block bootstrap:

    b = (2 G^2 / D)^(1/3) * n^(1/3),   G = sum lambda(k/M) |k| R(k),   D = 4/3 g^2,   g = sum lambda(k/M) R(k)

over all lags k, with autocovariances R and the flat-top window lambda(t) = 1 for |t| <= 1/2, 2 (1 - |t|) up to 1. M is
twice the lag after which no autocorrelation is significant. g is the long-run variance: n times the variance of the
mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import mul

SIGNIFICANCE = 2.0
"""Politis and White's c: an autocorrelation counts from c * sqrt(log10(n) / n)."""


@dataclass(frozen=True, slots=True)
class BlockLength:
    """Of one series."""

    length: int
    """In samples, from 1 to a third of the series."""
    long_run_variance: float
    """n times the variance of the mean; with independent samples their variance. Never negative."""


def block_length(series: Sequence[float]) -> BlockLength:
    """O(n) for each lag that is looked at, which are few more than the correlated ones. A constant series has length 1."""
    num = len(series)
    if num < 2:
        return BlockLength(1, 0.0)
    mean = math.fsum(series) / num
    covariances = _Autocovariances([value - mean for value in series])
    variance = covariances[0]
    if variance <= 1e-24 * mean * mean:
        return BlockLength(1, 0.0)
    bandwidth = _bandwidth(covariances, num)
    lags = [(k, _flat_top(k / bandwidth) * covariances[k]) for k in range(1, bandwidth + 1)]
    long_run = variance + 2 * math.fsum(weighted for _, weighted in lags)
    if long_run <= 0:
        return BlockLength(1, variance)
    slope = 2 * math.fsum(k * weighted for k, weighted in lags)
    best = (1.5 * (slope / long_run) ** 2 * num) ** (1 / 3)
    longest = max(1, int(min(3 * math.sqrt(num), num / 3)))
    return BlockLength(min(max(1, math.ceil(best)), longest), long_run)


class _Autocovariances:
    """R(k) of a centred series, worked out when first asked for."""

    def __init__(self, centred: list[float]) -> None:
        self._centred = centred
        self._known: dict[int, float] = {}

    def __getitem__(self, lag: int) -> float:
        if lag not in self._known:
            later = islice(self._centred, lag, None)
            self._known[lag] = sum(map(mul, self._centred, later)) / len(self._centred)
        return self._known[lag]


def _bandwidth(covariances: _Autocovariances, num: int) -> int:
    """M: twice the smallest lag that a run of insignificant autocorrelations follows."""
    limit = SIGNIFICANCE * math.sqrt(math.log10(num) / num) * covariances[0]
    run_needed = max(5, math.ceil(math.sqrt(math.log10(num))))
    last = min(num - 1, math.ceil(math.sqrt(num)) + run_needed)
    significant = 0
    for lag in range(1, last + 1):
        if abs(covariances[lag]) >= limit:
            significant = lag
        elif lag - significant >= run_needed:
            break
    return max(1, min(2 * max(significant, 1), last))


def _flat_top(t: float) -> float:
    return 1.0 if t <= 0.5 else 2 * (1 - t)
