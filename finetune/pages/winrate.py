"""How often one of two models is preferred, with an interval that knows which votes belong together.

Votes that decide are counted, ties are shown beside them. Where every cluster has one vote the interval is exact (Clopper and Pearson,
1934). Else votes of a cluster are alike and count for less than their number: the interval is the exact one of the effective number
of votes (Korn and Graubard, 1998), from the variance between clusters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class WinRate:
    """Of the candidate. `rate`, `lower` and `upper` are shares of the votes that decided; None without any."""

    num_wins: int
    num_losses: int
    num_ties: int
    num_clusters: int
    """That decided votes are of."""
    rate: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    """Exact and two-sided, that both are preferred equally often; None where votes are clustered."""

    @property
    def num_decided(self) -> int:
        return self.num_wins + self.num_losses


def win_rate(votes: Iterable[tuple[str, bool | None]], confidence: float = CONFIDENCE) -> WinRate:
    """`votes`: cluster, and whether the candidate won; None is a tie."""
    by_cluster: dict[str, list[bool]] = defaultdict(list)
    num_ties = 0
    for cluster, is_win in votes:
        if is_win is None:
            num_ties += 1
        else:
            by_cluster[cluster].append(is_win)
    wins = sum(map(sum, by_cluster.values()))
    total = sum(map(len, by_cluster.values()))
    if not total:
        return WinRate(0, 0, num_ties, 0)
    is_single = total == len(by_cluster)
    size = float(total) if is_single else _effective(list(by_cluster.values()), confidence)
    lower, upper = exact_interval(wins / total * size, size, confidence)
    return WinRate(
        wins, total - wins, num_ties, len(by_cluster), wins / total, lower, upper,
        sign_test(wins, total - wins) if is_single else None,
    )  # fmt: skip


def exact_interval(wins: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper and Pearson's, also for numbers that are no integers."""
    tail = (1 - confidence) / 2
    lower = 0.0 if wins <= 0 else _root(lambda p: incomplete_beta(wins, total - wins + 1, p) - tail, 0, 1)
    upper = 1.0 if wins >= total else _root(lambda p: incomplete_beta(wins + 1, total - wins, p) - 1 + tail, 0, 1)
    return lower, upper


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of as many or fewer of the rarer kind, if both were equally likely."""
    total = wins + losses
    tail = sum(math.comb(total, count) for count in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << total))


def _effective(clusters: list[list[bool]], confidence: float) -> float:
    """Independent votes that would tell as much: at least one, at most as many as there are."""
    total, count = sum(map(len, clusters)), len(clusters)
    rate = sum(map(sum, clusters)) / total
    if count < 2:
        return 1.0
    variance = count / (count - 1) * sum((sum(one) - rate * len(one)) ** 2 for one in clusters) / total**2
    if variance <= 0:  # all alike: within clusters too, as far as anyone can tell
        return float(count)
    tail = (1 - confidence) / 2
    few = _student(total - 1, tail) / _student(count - 1, tail)
    return min(float(total), max(1.0, rate * (1 - rate) / variance * few * few))


@cache
def _student(freedom: int, tail: float) -> float:
    """The value of Student's t that `tail` of the distribution lies above."""
    return _root(lambda t: tail - incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2, 0, 1e4)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by its continued fraction (Lentz; Press et al., Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1 - _fraction(b, a, 1 - x) * front / b
    return _fraction(a, b, x) * front / a


def _fraction(a: float, b: float, x: float) -> float:
    tiny, c = 1e-300, 1.0
    d = 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    total = d
    for step in range(1, 500):
        for term in (
            step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step)),
            -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1)),
        ):
            d = 1 / _away(1 + term * d, tiny)
            c = _away(1 + term / c, tiny)
            total *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return total


def _away(value: float, tiny: float) -> float:
    return tiny if abs(value) < tiny else value
