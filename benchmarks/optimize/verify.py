"""Whether the best setting is recommended: launched again in turns with the defaults, with prompts that the search never sent.

The best of many measurements is partly the luckiest, so what the search measured of it does not count. Each pair of launches
repeats the whole measurement of both, load included; what moves the machine moves both halves. The pair's ratio of
goodputs is one observation, and the interval of their mean must lie above 1.

A candidate is judged once, by the pairs that it then has: pairs added after a look, and the same test again, would find a
difference where there is none (6.5 % instead of 2.5 % after looks at 3, 5, 7 and 9). A larger budget may find another
candidate; each further one has half the error of the one before, so that all of them together stay below 5 % on that side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.optimize.trial import Probe, Trial
from benchmarks.statistics.binomial import Answer, BinomialTest, binomial_test
from benchmarks.statistics.bootstrap import LEVEL
from benchmarks.statistics.difference import MIN_PAIRS, Difference, Verdict, paired
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.slo import Slo

MAX_PAIRS = 9


@dataclass(frozen=True, slots=True)
class Pair:
    """Two launches, one after the other."""

    defaults: Trial
    candidate: Trial


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came out."""

    is_recommended: bool
    reason: str
    ratio: Interval | None = None
    """Goodput of the candidate over that of the defaults; None where there is none."""
    load: float | None = None
    """That every launch of the candidate carried."""


def turns(num_pairs: int) -> Iterator[tuple[int, bool]]:
    """(pair, whether it is the candidate's turn): who begins changes, and of an odd number the defaults end."""
    for number in range(num_pairs):
        is_first = number % 2 == 0
        yield number, is_first
        yield number, not is_first


def num_pairs(least: int, left_s: float, pair_s: float) -> int:
    """As many as fit, between `least` and MAX_PAIRS; odd, so that the defaults come last."""
    least = odd(max(least, MIN_PAIRS))
    fitting = min(MAX_PAIRS, int(left_s / pair_s)) if pair_s > 0 else MAX_PAIRS
    return max(least, fitting - 1 + fitting % 2)


def odd(num: int) -> int:
    """The number, or the next one."""
    return num + 1 - num % 2


def level_of(num_before: int) -> float:
    """Of the interval by which a candidate is judged, after so many others of the same search: 0.95, 0.975, 0.9875, ..."""
    return 1 - (1 - LEVEL) * 0.5**num_before


def judge(pairs: Sequence[Pair], least: int = MIN_PAIRS, level: float = LEVEL) -> Judgement:
    """Pure: no recommendation unless the candidate is shown to be better."""
    if (fault := _fault(pairs, least)) is not None:
        return Judgement(False, fault)
    load = min(pair.candidate.best.load for pair in pairs if pair.candidate.best)
    if not any(pair.defaults.score for pair in pairs):
        return Judgement(True, "it holds the SLO in every launch, the defaults in none", load=load)
    if not all(pair.defaults.score for pair in pairs):
        return Judgement(False, "the defaults hold the SLO in some launches only: their goodput cannot be compared")
    found = compared(pairs, level)
    if found.verdict is Verdict.BETTER:
        return Judgement(True, f"goodput {_words(found)} than the defaults", found.ratio, load)
    return Judgement(False, f"goodput {_words(found)}, against the defaults", found.ratio)


def compared(pairs: Sequence[Pair], level: float = LEVEL) -> Difference:
    """Candidate over defaults. Raises ValueError with fewer than three pairs, or a goodput of 0."""
    return paired([(pair.defaults.score, pair.candidate.score) for pair in pairs], is_higher_better=True, level=level)


def _words(found: Difference) -> str:
    """As `Difference.sentence`, with the level's own digits: another candidate's is not a whole percentage."""
    ratio = found.ratio
    return (
        f"{ratio.estimate:.3g}x ({ratio.low:.3g} to {ratio.high:.3g}, {100 * ratio.level:.6g} %): {found.verdict.value}"
    )


def shown(probes: Sequence[Probe], slo: Slo) -> list[tuple[str, BinomialTest]]:
    """Whether these requests show, at 99 %, that the SLO's percentiles hold; by objective."""
    found = []
    for objective in slo.objectives:
        counts = [probe.missed[str(objective)] for probe in probes]
        num_missed, num = sum(missed for missed, _ in counts), sum(of for _, of in counts)
        found.append((str(objective), binomial_test(num, num_missed, objective.percentile or 0.0)))
    return found


def test_words(name: str, test: BinomialTest) -> str:
    """For people."""
    words = {
        Answer.PASSED: "shown to hold",
        Answer.FAILED: "shown not to hold",
        Answer.UNDECIDED: f"held as measured; {test.num_more:,} more requests without a miss would show it",
    }
    return f"{name}: {test.num_missed} of {test.num:,} requests missed it; {words[test.answer]} ({test.confidence:.0%})"


def _fault(pairs: Sequence[Pair], least: int) -> str | None:
    """What keeps the pairs from being compared."""
    if len(pairs) < max(least, MIN_PAIRS):
        return f"the budget ended after {len(pairs)} of {max(least, MIN_PAIRS)} pairs of launches: call again with a larger one, it goes on"
    for number, pair in enumerate(pairs, start=1):
        for name, trial in (("the candidate", pair.candidate), ("the defaults", pair.defaults)):
            if not trial.is_measured:
                return f"{name}, launch {number}: {trial.words}"
        if not pair.candidate.score:
            return f"with fresh prompts the candidate does not hold the SLO (launch {number}): {pair.candidate.words}"
    return None
