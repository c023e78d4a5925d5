"""How far served scores lie from one reference towards another, with the uncertainty over texts. Pure, standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

_MANY = 200
"""From so many degrees of freedom on Student's quantiles are taken for normal ones."""
_FAR = 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio of sums over texts, its standard error, and how many texts of equal weight would be as uncertain."""

    value: float
    error: float
    num_effective: float

    def margin(self, tail: float) -> float:
        """Beyond value +- margin the truth lies with probability `tail` on either side; infinite where two texts do not bear it."""
        if not math.isfinite(self.error) or self.num_effective < 2:
            return math.inf
        return self.error * student_quantile(tail, math.floor(self.num_effective) - 1)


def ratio_over_texts(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate | None:
    """sum(numerators) / sum(denominators), one of each per text, denominators never negative; None where they sum to nothing.

    The error is the jackknife's over texts. With v_j the denominators, h_j = v_j / sum(v) and r_j = numerator_j - value * v_j,
    leaving out text j moves the value by -r_j / (sum(v) (1 - h_j)); error^2 = (J - 1) / J * the sum of their squares. That is what a
    bootstrap over texts estimates, without drawing anything, so that a verdict repeats exactly; it is known to err on the cautious
    side (CR3 of MacKinnon and White 1985), most where one text outweighs the rest. The number of effective texts is
    1 / sum(h_j^2), and Student's t with one degree less stands for the few that there are.
    """
    total = math.fsum(denominators)
    if not total > 0:
        return None
    value = math.fsum(numerators) / total
    shares = [share / total for share in denominators]
    count = len(shares)
    squares = 0.0
    for numerator, denominator, share in zip(numerators, denominators, shares, strict=True):
        moved = numerator - value * denominator
        if share >= 1:
            return Estimate(value, math.inf, 1.0)
        squares += (moved / (total * (1 - share))) ** 2
    return Estimate(value, math.sqrt(squares * (count - 1) / count), 1 / math.fsum(share * share for share in shares))


@lru_cache(maxsize=1024)
def student_quantile(tail: float, degrees: int) -> float:
    """What Student's t with so many degrees of freedom exceeds with probability `tail` < 1/2."""
    if degrees >= _MANY:
        return -NormalDist().inv_cdf(tail)
    low, high = 0.0, _FAR
    for _ in range(80):
        middle = (low + high) / 2
        if student_tail(middle, degrees) > tail:
            low = middle
        else:
            high = middle
    return high


def student_tail(t: float, degrees: int) -> float:
    """Probability that Student's t exceeds t >= 0, by the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = cosine if degrees % 2 else 1.0
    total = term if degrees > 1 else 0.0
    for step in range(3 if degrees % 2 else 2, degrees - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    inside = 2 / math.pi * (angle + sine * total) if degrees % 2 else sine * total
    return (1 - inside) / 2
