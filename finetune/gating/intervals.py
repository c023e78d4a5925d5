"""One-sided bounds on the mean difference of a population of clusters, from a sample of them.

The bound is Gaffke's for means of bounded variables (N. Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean
of a nonnegative variable", Mathematical Methods of Statistics 14, 2005; J. Learned-Miller and P. Thomas, arXiv:1905.06208): to the clusters
that were seen, one is added in which the candidate loses every item, and the clusters are weighed at random as in Rubin's Bayesian
bootstrap; the lower bound is the quantile, at the level, of the weighed mean. It asks no variance, so it neither shrinks to a point where
all differences are zero nor trusts a handful of clusters; where differences are 0 and 1 it is the bound of Clopper and Pearson exactly; for
many clusters it comes to the usual one. The upper bound is the same the other way round, with what a cluster may gain at the most.

Weights are exponential, so that the mean lies below c with the chance that a weighed sum of gamma variables is negative: computed by the
saddlepoint formula of Lugannani and Rice (Advances in Applied Probability 12, 1980), within 2 % of the chance itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.gating.paired import Totals

Array = NDArray[np.float64]
_ROUNDS, _CLOSE = 60, 1e-12
_GRID, _GRIDS = 16, 8
"""2 / _GRID ** _GRIDS is how near a bound is computed."""
_NEAR = 1e-4
"""Standard deviations from the mean within which the formula divides by nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Clusters, like ones together; leading axes are independent samples."""

    differences: Array
    """[..., kinds], sum of candidate - live over a cluster's items."""
    sizes: Array
    """[..., kinds], its items."""
    counts: Array
    """[..., kinds], how many such clusters there are; need not be whole."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """In points of 100."""

    lower: float
    upper: float


def sample_of(totals: Totals) -> Sample:
    kinds, counts = np.unique(np.stack([totals.differences, totals.sizes]), axis=1, return_counts=True)
    return Sample(kinds[0], kinds[1], counts.astype(float))


def repeated(sample: Sample, times: float) -> Sample:
    """As many such clusters again."""
    return Sample(sample.differences, sample.sizes, sample.counts * times)


def turned(sample: Sample) -> Sample:
    """With candidate and live exchanged."""
    return Sample(-sample.differences, sample.sizes, sample.counts)


def bounds(sample: Sample, lower_level: float, upper_level: float, best: float = 1.0) -> Bounds:
    """Each errs with its level. `best`: what the candidate may gain in a cluster that was not seen, 1 to suppose nothing."""
    return Bounds(100 * _lower(sample, lower_level, -1.0), -100 * _lower(turned(sample), upper_level, -best))


def chance_below(sample: Sample, points: float | Array, worst: float | Array = -1.0) -> Array:
    """[...]: at levels above this the lower bound lies above `points`.

    `worst`: mean difference of the cluster that is added, as large as the cluster of an item is on average; both may be [...] too.
    """
    limit, added = np.asarray(points)[..., None] / 100, np.asarray(worst)[..., None]
    items = np.sum(sample.counts * sample.sizes, axis=-1, keepdims=True)
    size = np.sum(sample.counts * sample.sizes**2, axis=-1, keepdims=True) / items
    values = np.concatenate([sample.differences - limit * sample.sizes, size * (added - limit)], axis=-1)
    return negative_chance(values, np.concatenate([sample.counts, np.ones_like(items)], axis=-1))


def chance_above(sample: Sample, points: float | Array, best: float | Array = 1.0) -> Array:
    """[...]: at levels above this the upper bound lies below `points`."""
    return chance_below(turned(sample), -points, -best)


def best_seen(sample: Sample) -> Array:
    """[...]: mean difference of the cluster that gained the most, 0 where none gained."""
    means = np.where(sample.counts > 0, sample.differences / np.maximum(sample.sizes, 1), 0.0)
    return np.asarray(np.maximum(means.max(axis=-1), 0.0))


def _lower(sample: Sample, level: float, worst: float) -> float:
    """Between -1 and 1, narrowed down by a grid of grids."""
    low, width = -1.0, 2.0
    for _ in range(_GRIDS):
        inner = low + width * np.arange(1, _GRID) / _GRID
        parts = (sample.differences, sample.sizes, sample.counts)
        some = Sample(*(np.broadcast_to(part, (len(inner), *part.shape)) for part in parts))
        low += width / _GRID * int(np.sum(chance_below(some, 100 * inner, worst) < level))
        width /= _GRID
    return low


def negative_chance(values: Array, counts: Array) -> Array:
    """[...]: of the sum over kinds of `values` times gamma variables with shape `counts` (both [..., kinds]) being at most 0."""
    values = np.where(counts > 0, values, 0.0)
    least, most = np.asarray(values.min(axis=-1)), np.asarray(values.max(axis=-1))
    is_mixed = (least < 0) & (most > 0)
    chance = np.where(most > 0, 0.0, 1.0)
    if is_mixed.any():
        chance[is_mixed] = _saddlepoint(values[is_mixed], counts[is_mixed], least[is_mixed], most[is_mixed])
    return chance


def _saddlepoint(values: Array, counts: Array, least: Array, most: Array) -> Array:
    """The sum's cumulant generating function is -sum(counts * log(1 - s * values)), for s between 1 / least and 1 / most."""
    at = _minimum(values, counts, 1 / least, 1 / most)
    inner = 1 - at[..., None] * values
    height = np.sum(counts * np.log(inner), axis=-1)
    curve = np.sum(counts * (values / inner) ** 2, axis=-1)
    w = np.sign(at) * np.sqrt(2 * np.maximum(height, 0.0))
    u = at * np.sqrt(curve)
    is_near = np.abs(w) < _NEAR
    safe_w, safe_u = np.where(is_near, 1.0, w), np.where(is_near, 1.0, u)
    away = _normal_cdf(w) + np.exp(-0.5 * w * w) / math.sqrt(2 * math.pi) * (1 / safe_w - 1 / safe_u)
    skew = 2 * np.sum(counts * values**3, axis=-1) / np.sum(counts * values**2, axis=-1) ** 1.5
    at_middle = 0.5 + skew / (6 * math.sqrt(2 * math.pi))
    return np.asarray(np.clip(np.where(is_near, at_middle, away), 0.0, 1.0))


def _minimum(values: Array, counts: Array, low: Array, high: Array) -> Array:
    """Where the generating function is least: its slope rises from below 0 to above. Newton's steps, halves where one leads astray."""
    at = np.zeros_like(low)
    for _ in range(_ROUNDS):
        parts = values / (1 - at[..., None] * values)
        slope = np.sum(counts * parts, axis=-1)
        low, high = np.where(slope < 0, at, low), np.where(slope < 0, high, at)
        step = at - slope / np.sum(counts * parts * parts, axis=-1)
        after = np.where((low < step) & (step < high), step, (low + high) / 2)
        if np.all(np.abs(after - at) <= _CLOSE * np.abs(after)):
            return after
        at = after
    return at


def _normal_cdf(x: Array) -> Array:
    flat = [0.5 * math.erfc(-value / math.sqrt(2)) for value in x.ravel().tolist()]
    return np.array(flat).reshape(x.shape)
