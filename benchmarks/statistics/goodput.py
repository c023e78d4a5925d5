"""How much of what was asked for was answered within the service level objectives.

good        answered, every objective defined and held
missed      answered, at least one objective not held
failed      errors, timeouts and rejects: in the denominator, as the user did not get an answer in time either
undefined   answered, nothing missed, but an objective has no value (tpot of one token): neither good nor missed
cancelled   cut off by the client on purpose: counted apart

goodput     good / duration, and their output tokens / duration
attainment  good / (good + missed + failed)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.statistics.binomial import CONFIDENCE, Answer, BinomialTest, binomial_test
from benchmarks.statistics.slo import Objective, Slo


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, as far as a promise is concerned."""

    values_s: Mapping[str, float | None]
    """By the names of slo.METRICS, in seconds; None or missing where undefined."""
    is_answered: bool
    output_tokens: int = 0
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class ObjectiveResult:
    """One objective by itself."""

    objective: Objective
    num: int
    """Answered requests that have a value, and failed ones."""
    num_missed: int
    """Failed ones included."""
    num_undefined: int
    attainment: float | None
    """Share that held it; None without any."""
    test: BinomialTest | None
    """Whether that shows the percentile asked for; None where none was asked for, or there is nothing to test."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """One run under one SLO."""

    num_requests: int
    num_good: int
    num_missed: int
    num_failed: int
    num_undefined: int
    num_cancelled: int
    requests_per_s: float
    tokens_per_s: float
    attainment: float | None
    """None without a request that counts."""
    objectives: tuple[ObjectiveResult, ...]

    @property
    def answer(self) -> Answer | None:
        """All objectives' tests together: failed where one has failed, passed where all have passed. None for an SLO without
        percentiles, which asks nothing of a run.
        """
        if any(result.objective.percentile is None for result in self.objectives):
            return None
        answers = {result.test.answer if result.test else Answer.UNDECIDED for result in self.objectives}
        return next(each for each in (Answer.FAILED, Answer.UNDECIDED, Answer.PASSED) if each in answers)

    @property
    def num_more(self) -> int:
        """Further requests without a miss that it would take to pass; 0 when passed, or where nothing is tested."""
        return max((result.test.num_more for result in self.objectives if result.test), default=0)

    @property
    def is_met(self) -> bool:
        """True when every objective's test has passed: the load is one that the SLO is shown to hold at. Raises
        ValueError for an SLO without percentiles, which asks nothing of a run.
        """
        if any(result.objective.percentile is None for result in self.objectives):
            raise ValueError("the objectives name no percentile, so no run can meet or miss them: write ttft_p99<500ms")
        return all(result.test is not None and result.test.answer is Answer.PASSED for result in self.objectives)

    def test(self, share: float, confidence: float = CONFIDENCE) -> BinomialTest:
        """Whether it is shown that `share` of all requests would hold all objectives at once: for an SLO without percentiles."""
        num_missed = self.num_missed + self.num_failed
        return binomial_test(self.num_good + num_missed, num_missed, share, confidence)


def goodput(outcomes: Sequence[Outcome], slo: Slo, duration_s: float, confidence: float = CONFIDENCE) -> Goodput:
    """Of all requests of a window that took `duration_s`. Raises ValueError without a duration."""
    if duration_s <= 0:
        raise ValueError(f"no duration: {duration_s}")
    counted = [outcome for outcome in outcomes if not outcome.is_cancelled]
    answered = [outcome for outcome in counted if outcome.is_answered]
    holds = [[_holds(outcome, objective) for objective in slo.objectives] for outcome in answered]
    good = [outcome for outcome, held in zip(answered, holds, strict=True) if all(held)]
    num_missed = sum(False in held for held in holds)
    num_failed = len(counted) - len(answered)
    judged = len(good) + num_missed + num_failed
    return Goodput(
        num_requests=len(outcomes),
        num_good=len(good),
        num_missed=num_missed,
        num_failed=num_failed,
        num_undefined=len(counted) - judged,
        num_cancelled=len(outcomes) - len(counted),
        requests_per_s=len(good) / duration_s,
        tokens_per_s=sum(outcome.output_tokens for outcome in good) / duration_s,
        attainment=len(good) / judged if judged else None,
        objectives=tuple(
            _result(objective, [held[place] for held in holds], num_failed, confidence)
            for place, objective in enumerate(slo.objectives)
        ),
    )


def _holds(outcome: Outcome, objective: Objective) -> bool | None:
    value = outcome.values_s.get(objective.metric)
    return None if value is None else value < objective.limit_s


def _result(objective: Objective, held: Sequence[bool | None], num_failed: int, confidence: float) -> ObjectiveResult:
    num_undefined = held.count(None)
    num = len(held) - num_undefined + num_failed
    num_missed = held.count(False) + num_failed
    is_tested = objective.percentile is not None and num > 0
    test = binomial_test(num, num_missed, objective.percentile or 0.0, confidence) if is_tested else None
    return ObjectiveResult(objective, num, num_missed, num_undefined, 1 - num_missed / num if num else None, test)
