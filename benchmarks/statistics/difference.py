"""Two results against each other: better, worse, or no difference shown.

Apart (two files): the interval of the ratio B / A follows from those of A and B on the log scale (MOVER: G. Zou, A.
Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27, 2008). It keeps their
asymmetry, and needs neither run's samples.

Interleaved (`bench versus`: A B, B A, ..., with the same requests): what moves the machine moves both halves of a pair,
so the pair's ratio is the observation, and as many pairs as there are repeats are all there is to say how those vary:
Student's t with pairs - 1.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.statistics.bootstrap import LEVEL
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.student import t_quantile

MIN_PAIRS = 3


class Verdict(StrEnum):
    """Of B, held against A."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"
    """The interval holds 1, or reaches no end: not the same as equal."""


@dataclass(frozen=True, slots=True)
class Difference:
    """B against A."""

    ratio: Interval
    """B / A."""
    verdict: Verdict

    def sentence(self) -> str:
        """`1.12x (1.05 to 1.19, 95 %): better`."""
        low, high = (f"{end:.3g}" if end is not None else "open" for end in (self.ratio.low, self.ratio.high))
        return f"{self.ratio.estimate:.3g}x ({low} to {high}, {self.ratio.level:.0%}): {self.verdict.value}"


def compare(a: Interval, b: Interval, is_higher_better: bool) -> Difference:
    """Two results measured apart from each other. Raises ValueError for different levels, or estimates that have no
    ratio (0 or below).
    """
    if a.level != b.level:
        raise ValueError(f"intervals of different levels: {a.level:.0%} and {b.level:.0%}")
    if min(a.estimate, b.estimate) <= 0:
        raise ValueError(f"no ratio of {b.estimate:g} to {a.estimate:g}: both must be above 0")
    ratio = b.estimate / a.estimate
    down = _step(b.estimate, b.low, a.high, a.estimate)
    up = _step(b.estimate, b.high, a.low, a.estimate)
    found = Interval(
        ratio,
        None if down is None else ratio * math.exp(-down),
        None if up is None else ratio * math.exp(up),
        a.level,
        num_samples=a.num_samples + b.num_samples,
        num_repeats=min(a.num_repeats, b.num_repeats),
        num_blocks=min(a.num_blocks, b.num_blocks),
        is_between_repeats=a.is_between_repeats or b.is_between_repeats,
    )
    return judged(found, is_higher_better)


def paired(pairs: Sequence[tuple[float, float]], is_higher_better: bool, level: float = LEVEL) -> Difference:
    """(A, B) of each interleaved pair of runs, one figure each: the geometric mean of B / A. Raises ValueError with
    fewer than three pairs, or figures of 0 or below.
    """
    num = len(pairs)
    if num < MIN_PAIRS:
        raise ValueError(f"{num} pairs show nothing about how pairs vary: at least {MIN_PAIRS}")
    if any(min(pair) <= 0 for pair in pairs):
        raise ValueError("no ratio of a figure that is 0 or below")
    logs = [math.log(b / a) for a, b in pairs]
    centre = statistics.fmean(logs)
    margin = t_quantile((1 + level) / 2, num - 1) * statistics.stdev(logs) / math.sqrt(num)
    estimate, low, high = (math.exp(centre + step) for step in (0.0, -margin, margin))
    return judged(Interval(estimate, low, high, level, num, num, float(num), True), is_higher_better)


def judged(ratio: Interval, is_higher_better: bool) -> Difference:
    """A ratio B / A that has its interval already, as `bootstrap.ratio` gives for the same requests side by side."""
    if ratio.low is not None and ratio.low > 1:
        verdict = Verdict.BETTER if is_higher_better else Verdict.WORSE
    elif ratio.high is not None and ratio.high < 1:
        verdict = Verdict.WORSE if is_higher_better else Verdict.BETTER
    else:
        verdict = Verdict.NO_DIFFERENCE
    return Difference(ratio, verdict)


def _step(b: float, b_end: float | None, a_end: float | None, a: float) -> float | None:
    """From the ratio's logarithm to one of its ends: B's end and A's opposite one, as if at right angles. None where
    either is open.
    """
    if b_end is None or a_end is None or min(b_end, a_end) <= 0:
        return None
    return math.hypot(math.log(b_end / b), math.log(a_end / a))
