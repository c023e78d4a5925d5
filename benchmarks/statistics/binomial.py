"""Whether enough requests met a limit to say, with confidence, that the demanded share of all requests would.

MLPerf Inference's early stopping test (mlcommons/inference_policies, "Early stopping"; loadgen/early_stopping.cc): n
queries of which t were over the limit show that the p-th percentile is within it, with confidence c, when as few misses
would be unlikely at exactly p:

    P(at most t of n miss) = sum over x <= t of C(n, x) p^(n - x) (1 - p)^x = I_p(n - t, t + 1) <= 1 - c

Exact, without a normal approximation: 64 queries for p90 and 662 for p99 where one misses, MLPerf's own minima. Without
early stopping MLPerf asks for a fixed number that gives the percentile a margin of (1 - p) / 20, rounded up to a
multiple of 2^13: see `fixed_queries`.

The test takes queries for independent. Neighbours in a queue are not: below some tens of seconds of overload it is too
sure of itself.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from benchmarks.statistics.student import incomplete_beta

CONFIDENCE = 0.99
"""MLPerf's c."""
_ROUND_TO = 1 << 13


class Answer(StrEnum):
    """What a number of misses shows."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """Too few requests to say either."""


@dataclass(frozen=True, slots=True)
class BinomialTest:
    """Of one percentile."""

    num: int
    num_missed: int
    percentile: float
    confidence: float
    answer: Answer
    num_allowed: int | None
    """The most misses of `num` that would pass; None where even none would not."""
    num_more: int
    """Further requests without a miss that it would take to pass; 0 when passed."""


def binomial_test(num: int, num_missed: int, percentile: float, confidence: float = CONFIDENCE) -> BinomialTest:
    """Raises ValueError for numbers that cannot be."""
    if not 0 <= num_missed <= num:
        raise ValueError(f"{num_missed} of {num} cannot have missed")
    _check(percentile, confidence)
    allowed = allowed_misses(num, percentile, confidence)
    if allowed is not None and num_missed <= allowed:
        answer = Answer.PASSED
    elif num and 1 - chance_of_at_most(num_missed - 1, num, percentile) <= 1 - confidence:
        answer = Answer.FAILED
    else:
        answer = Answer.UNDECIDED
    more = 0 if answer is Answer.PASSED else max(0, required_queries(num_missed, percentile, confidence) - num)
    return BinomialTest(num, num_missed, percentile, confidence, answer, allowed, more)


def chance_of_at_most(num_missed: int, num: int, percentile: float) -> float:
    """P(at most `num_missed` of `num` miss) where each misses with 1 - percentile."""
    if num_missed < 0:
        return 0.0
    if num_missed >= num:
        return 1.0
    return incomplete_beta(num - num_missed, num_missed + 1, percentile)


def allowed_misses(num: int, percentile: float, confidence: float = CONFIDENCE) -> int | None:
    """The most of `num` that may miss; None where `num` is too small to show anything."""
    _check(percentile, confidence)
    low, high = -1, num  # `low` passes (or is none), `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if chance_of_at_most(middle, num, percentile) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low if low >= 0 else None


def required_queries(num_missed: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest requests that pass with so many misses among them."""
    _check(percentile, confidence)
    low, high = num_missed, max(2, 2 * num_missed)
    while chance_of_at_most(num_missed, high, percentile) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if chance_of_at_most(num_missed, middle, percentile) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def fixed_queries(percentile: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """(needed, rounded up as MLPerf does) for a margin of (1 - p) / 20: 24,576 for p90, 57,344 for p95, 90,112 for p97,
    270,336 for p99.
    """
    _check(percentile, confidence)
    margin = (1 - percentile) / 20
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    needed = round(z * z * percentile * (1 - percentile) / margin**2)
    return needed, math.ceil(needed / _ROUND_TO) * _ROUND_TO


def _check(percentile: float, confidence: float) -> None:
    for name, value in (("percentile", percentile), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {value}")
