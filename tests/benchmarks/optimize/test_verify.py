import math
import random
from collections.abc import Sequence

import pytest

from benchmarks.optimize import verify
from benchmarks.optimize.settings import DEFAULTS, Setting
from benchmarks.optimize.trial import Outcome, Probe, Trial
from benchmarks.optimize.verify import Pair
from benchmarks.statistics.slo import parse_slo

FAST = Setting.of({"n_batch": 64})


def launched(
    setting: Setting, goodput: float, load: float = 8, outcome: Outcome = Outcome.MEASURED, why: str = ""
) -> Trial:
    probe = Probe(
        load, goodput, 0.0, None, 100, 0, {"ttft_p99<500ms": (0, 100)}, {}, 1.0, "" if goodput else "ttft too long"
    )
    return Trial("pair 1", setting, 4, outcome, why, probes=(probe,))


def pairs(defaults: Sequence[float], candidate: Sequence[float]) -> list[Pair]:
    return [Pair(launched(DEFAULTS, a), launched(FAST, b)) for a, b in zip(defaults, candidate, strict=True)]


def test_turns_change_who_begins_and_end_with_the_defaults() -> None:
    assert list(verify.turns(3)) == [(0, True), (0, False), (1, False), (1, True), (2, True), (2, False)]


@pytest.mark.parametrize(
    ("least", "left_s", "pair_s", "num"),
    [
        (3, 0.0, 10.0, 3),
        (3, 59.0, 10.0, 5),
        (3, 60.0, 10.0, 5),
        (3, 1e9, 10.0, 9),
        (4, 0.0, 10.0, 5),
        (3, 70.0, 0.0, 9),
        (9, 0.0, 1.0, 9),
    ],
)
def test_as_many_pairs_as_fit_and_an_odd_number(least: int, left_s: float, pair_s: float, num: int) -> None:
    assert verify.num_pairs(least, left_s, pair_s) == num


def test_clearly_better_is_recommended_at_a_load_that_every_launch_carried() -> None:
    better = [
        Pair(launched(DEFAULTS, 10 + noise), launched(FAST, 20 + noise, load))
        for noise, load in ((0, 16), (1, 12), (0.5, 16))
    ]
    found = verify.judge(better)
    assert found.is_recommended
    assert found.load == 12
    assert found.ratio is not None
    assert found.ratio.low is not None
    assert found.ratio.low > 1
    assert "better" in found.reason


@pytest.mark.parametrize("candidate", [[11, 9, 10.5], [10, 10, 10], [8, 8.1, 7.9]])
def test_no_better_is_not_recommended(candidate: list[float]) -> None:
    found = verify.judge(pairs([10, 10.1, 9.9], candidate))
    assert not found.is_recommended
    assert found.ratio is not None
    assert found.load is None


def test_too_few_pairs_recommend_nothing() -> None:
    found = verify.judge(pairs([10, 10], [20, 20]))
    assert not found.is_recommended
    assert "after 2 of 3 pairs" in found.reason


def test_a_candidate_that_fails_once_is_not_recommended() -> None:
    died = pairs([10, 10, 10], [20, 20, 20])
    died[1] = Pair(died[1].defaults, launched(FAST, 0, outcome=Outcome.DIED, why="exited with code 139"))
    assert "the candidate, launch 2: died: exited with code 139" in verify.judge(died).reason
    assert "does not hold the SLO (launch 3)" in verify.judge(pairs([10, 10, 10], [20, 20, 0])).reason


def test_defaults_that_never_hold_the_slo_are_beaten_by_whatever_does() -> None:
    found = verify.judge(pairs([0, 0, 0], [5, 5, 5]))
    assert found.is_recommended
    assert found.ratio is None
    assert not verify.judge(pairs([0, 4, 0], [5, 5, 5])).is_recommended


def test_looking_again_with_larger_budgets_makes_no_luck() -> None:
    """Equal settings; budgets of 3, 5, 7 and 9 pairs, a call each, every one of which may recommend."""
    rng, num, num_better = random.Random(7), 2000, 0
    for _ in range(num):
        logs = [(10.0, 10.0 * math.exp(rng.gauss(0, 0.1))) for _ in range(9)]
        known: int | None = None
        is_better = False
        for fitting in (3, 5, 7, 9):
            known = known or verify.num_pairs(3, fitting * 10.0, 10.0)
            is_better |= verify.judge(pairs(*zip(*logs[:known], strict=True))).is_recommended
        num_better += is_better
    assert num_better / num < 0.035, "one side of 95 % is 2.5 %; four looks at the same pairs would make it 6.5 %"


def test_each_further_candidate_has_less_of_the_error() -> None:
    levels = [verify.level_of(number) for number in range(40)]
    assert levels[:3] == [0.95, 0.975, 0.9875]
    assert sum(1 - level for level in levels) / 2 <= 0.05, "of `better` where nothing is"
    found = verify.judge(pairs([10, 10, 10], [12, 12.4, 12.9]), level=levels[2])
    assert found.ratio is not None
    assert found.ratio.level == levels[2]
    assert "98.75 %" in found.reason


def test_it_is_said_whether_the_requests_show_the_percentiles() -> None:
    slo = parse_slo("ttft_p99<500ms")
    few = [launched(FAST, 5).probes[0]]
    [(name, test)] = verify.shown(few, slo)
    assert name == "ttft_p99<500ms"
    assert "more requests without a miss would show it" in verify.test_words(name, test)
    [(_, test)] = verify.shown(few * 5, slo)
    assert "shown to hold" in verify.test_words(name, test)
