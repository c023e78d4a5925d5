"""capacity@SLO: the highest rate at which a service level objective is shown to hold, found by bisection.

A rate passes when the binomial test of every objective does (statistics/binomial.py, MLPerf's), errors and rejects among the
misses, and when the server carries it: under a queue that only grows every objective is missed sooner or later. It fails
when a test fails, or when the server does not carry it. Where neither is shown the rate is looked at again, longer each time;
a test of four looks would be wrong four times as often, so each look takes a fourth of the error. Two looks last long enough
to pass without a miss, so a rate that is undecided after the last one is close to the capacity, and has not passed. Where too
few requests counted all the same (cut off, or without a value) the search ends: a lower rate has fewer still. It ends too at a
rate whose run is void.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.beyond import Beyond, beyond_of
from benchmarks.campaign import Level, goodput_of, level_of
from benchmarks.loads import MIN_REQUESTS, steady_load
from benchmarks.statistics.binomial import CONFIDENCE, Answer, required_queries
from benchmarks.statistics.goodput import Goodput
from benchmarks.statistics.slo import Slo, SloError
from benchmarks.sweep import RATE_DURATION_S, Surveyor, arrival_rate
from benchmarks.traffic.arrivals import Spacing

LOOKS = (1, 1, 2, 4)
"""Lengths of the looks at a rate, in those of its first."""
LOOK_CONFIDENCE = 1 - (1 - CONFIDENCE) / len(LOOKS)
"""Of the test in one look, so that all looks together have CONFIDENCE."""
FIRST = 0.75
"""Of full throughput, the rate that is tried first."""
_GROWTH = 1.5
_POISSON = Spacing()


@dataclass(frozen=True, slots=True)
class Search:
    """How finely, and for how long."""

    slo: Slo
    duration_s: float = RATE_DURATION_S
    """Of the first look at a rate, at least."""
    precision: float = 0.05
    """The search ends when the lowest rate that did not pass is within this share of the highest that did."""
    num_rates: int = 8
    """At most."""
    spacing: Spacing = _POISSON
    num_sent: int = 0
    """Runs at a rate that a sweep may have made before: looks have other requests, as a prefix cache would answer the same."""

    @property
    def num_needed(self) -> int:
        """Requests at a rate that show, without a miss among them, that every objective holds. The SLO has percentiles."""
        return max(required_queries(0, each.percentile or 0.0, LOOK_CONFIDENCE) for each in self.slo.objectives)

    def look_s(self, rate: float) -> float:
        """How long the first look at a rate is."""
        return max(self.duration_s, self.num_needed / sum(LOOKS[:2]) / rate, MIN_REQUESTS / rate)

    def longest_s(self, rate: float) -> float:
        """How long all looks at a rate are."""
        return sum(LOOKS) * self.look_s(rate)


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate under an SLO."""

    rate: float
    level: Level
    goodput: Goodput
    answer: Answer
    beyond: Beyond | None
    """Why the server does not carry it, or its run is void."""

    @property
    def is_void(self) -> bool:
        """True where it says nothing about the server."""
        return self.beyond is not None and self.beyond.cause.is_fault

    @property
    def has_too_few(self) -> bool:
        """True where it is undecided, and would be without a miss, too."""
        tests = [result.test for result in self.goodput.objectives]
        return self.answer is Answer.UNDECIDED and any(test is None or test.num_allowed is None for test in tests)

    def sentence(self) -> str:
        """For people."""
        said = f"{self.rate:.4g} requests/s {_ANSWERS[self.answer]}"
        if self.is_void and self.beyond:
            return f"{said}: its run is void, {self.beyond.because}"
        if self.has_too_few and (num := self.goodput.num_more):
            more_s = num / (self.level.pooled.request_rate or self.rate)
            return f"{said}: {num:,} more requests without a miss would pass, about {more_s:,.0f} s"
        return said


@dataclass(frozen=True, slots=True)
class Capacity:
    """Between which rates it lies."""

    rate: float | None
    """The highest that passed below all that did not; None where none did."""
    above: Trial | None
    """The lowest that did not pass; None where every rate did."""
    confidence: float = CONFIDENCE
    why_none: str | None = None
    """Where no rate had to be tried to know."""

    def sentence(self) -> str:
        """For people."""
        if self.why_none:
            return f"capacity@SLO: none; {self.why_none}"
        above = self.above.sentence() if self.above else "no higher rate was tried"
        if self.rate is None:
            return f"capacity@SLO: none shown; {above}" if self.above else "capacity@SLO: no rate was tried"
        return f"capacity@SLO: {self.rate:.4g} requests/s passes with {self.confidence:.0%} confidence; {above}"


_ANSWERS = {
    Answer.PASSED: "passes",
    Answer.FAILED: "does not pass",
    Answer.UNDECIDED: "is undecided",
}


def trial_of(level: Level, rate: float, slo: Slo) -> Trial:
    """Hold a rate that was measured against an SLO with percentiles."""
    found = goodput_of(level, slo)
    beyond = beyond_of(level)
    answer = found.answer
    if beyond:
        answer = Answer.UNDECIDED if beyond.cause.is_fault else Answer.FAILED
    assert answer is not None, f"{slo} names no percentile"
    return Trial(rate, level, found, answer, beyond)


def capacity_of(trials: Iterable[Trial]) -> Capacity:
    """Of the rates that were tried. One that passed above one that did not is not believed."""
    listed = sorted(trials, key=lambda trial: trial.rate)
    above = next((trial for trial in listed if trial.answer is not Answer.PASSED), None)
    passed = [trial.rate for trial in listed if above is None or trial.rate < above.rate]
    return Capacity(max(passed, default=None), above)


def next_rate(found: Capacity, search: Search, first: float) -> float | None:
    """What to try after that; None where the search is over."""
    low, high = found.rate, found.above.rate if found.above else None
    if found.above and found.above.has_too_few:
        return None
    if low is None:
        return first if high is None else high / 2
    if high is None:
        return low * _GROWTH
    return None if high <= low * (1 + search.precision) else (low + high) / 2


async def find_capacity(surveyor: Surveyor, search: Search, known: Sequence[Trial], first: float) -> tuple[Trial, ...]:
    """All trials, those that are `known` first; `first` is the rate to begin with where none is. Raises SloError where no answer
    has what an objective is about.
    """
    trials = list(known)
    for _ in range(search.num_rates):
        rate = next_rate(capacity_of(trials), search, first)
        if rate is None or any(trial.is_void for trial in trials):
            break
        trials.append(await _tried(surveyor, search, float(f"{rate:.4g}")))
    return tuple(trials)


def first_rate(full: Level) -> float:
    """What to begin with, by full throughput."""
    return FIRST * arrival_rate(full)


def missed_alone(alone: Level, slo: Slo) -> str | None:
    """Why no rate has to be tried: the SLO is missed with one request at a time. None where it may hold. Raises SloError as
    `find_capacity`.
    """
    found = goodput_of(alone, slo)
    require_defined(found)
    if found.answer is not Answer.FAILED:
        return None
    missed = (each for each in found.objectives if each.test and each.test.answer is Answer.FAILED)
    said = ", ".join(f"{each.objective} by {each.num_missed} of {each.num}" for each in missed)
    return f"missed with one request at a time ({said})"


def require_defined(found: Goodput) -> None:
    """Raises SloError where there are answers, and none of them has a value of some objective."""
    for result in found.objectives:
        if result.num_undefined and result.num == found.num_failed:
            raise SloError(
                f"--slo {result.objective}: no answer of this server has a {result.objective.metric}; promise another metric"
            )


async def _tried(surveyor: Surveyor, search: Search, rate: float) -> Trial:
    runs = []
    look_s = search.look_s(rate)
    for number, times in enumerate(LOOKS, search.num_sent):
        runs.append(await surveyor.run(steady_load(rate, search.spacing, look_s * times), number))
        level = replace(level_of(0, runs, surveyor.plan.num_gpus), look_confidence=LOOK_CONFIDENCE)
        trial = trial_of(level, rate, search.slo)
        require_defined(trial.goodput)
        if trial.answer is not Answer.UNDECIDED or trial.is_void:
            break
    return trial
