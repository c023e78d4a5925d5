import pytest

from benchmarks.statistics.binomial import Answer
from benchmarks.statistics.goodput import Outcome, goodput
from benchmarks.statistics.slo import parse_slo

SLO = parse_slo("interactive")


def outcome(ttft_s: float | None = 0.1, tpot_s: float | None = 0.01, **more: bool) -> Outcome:
    return Outcome(
        {"ttft": ttft_s, "tpot": tpot_s}, is_answered=more.pop("is_answered", True), output_tokens=10, **more
    )


FAILED = outcome(None, None, is_answered=False)


def test_errors_and_rejects_are_in_the_denominator():
    found = goodput([outcome(), outcome(), FAILED, outcome(ttft_s=0.6)], SLO, 2.0)
    assert (found.num_good, found.num_missed, found.num_failed, found.num_undefined) == (2, 1, 1, 0)
    assert found.attainment == 0.5
    assert (found.requests_per_s, found.tokens_per_s) == (1.0, 10.0)


def test_all_objectives_must_hold():
    found = goodput([outcome(ttft_s=0.6, tpot_s=0.01), outcome(ttft_s=0.1, tpot_s=0.05)], SLO, 1.0)
    assert (found.num_good, found.num_missed) == (0, 2)
    assert [result.num_missed for result in found.objectives] == [1, 1]


def test_a_limit_is_not_held_by_reaching_it():
    assert goodput([outcome(ttft_s=0.5)], SLO, 1.0).num_good == 0


def test_an_undefined_tpot_never_passes_and_is_counted_apart():
    found = goodput([outcome(), outcome(tpot_s=None)], SLO, 1.0)
    assert (found.num_good, found.num_undefined, found.attainment) == (1, 1, 1.0)
    tpot = found.objectives[1]
    assert (tpot.num, tpot.num_undefined, tpot.attainment) == (1, 1, 1.0)


def test_an_undefined_tpot_beside_a_missed_ttft_is_a_miss():
    assert goodput([outcome(ttft_s=0.6, tpot_s=None)], SLO, 1.0).num_missed == 1


def test_nothing_but_undefined_is_no_attainment():
    found = goodput([outcome(tpot_s=None)] * 3, SLO, 1.0)
    assert found.attainment is None
    assert found.objectives[1].test is None
    assert not found.is_met


def test_a_metric_that_nobody_gave_is_undefined():
    assert goodput([outcome()], parse_slo("queue:5"), 1.0).num_undefined == 1


def test_cancelled_requests_are_counted_apart():
    found = goodput([outcome(), outcome(is_cancelled=True, is_answered=False)], SLO, 1.0)
    assert (found.num_requests, found.num_cancelled, found.num_failed, found.attainment) == (2, 1, 0, 1.0)


def test_a_load_is_met_when_every_test_passes():
    assert goodput([outcome()] * 459, SLO, 1.0).is_met
    few = goodput([outcome()] * 458, SLO, 1.0)
    assert not few.is_met
    assert few.objectives[0].test is not None
    assert few.objectives[0].test.answer is Answer.UNDECIDED
    assert few.objectives[0].test.num_more == 1
    bad = goodput([outcome()] * 500 + [FAILED] * 50, SLO, 1.0)
    assert {result.test.answer for result in bad.objectives if result.test} == {Answer.FAILED}


def test_the_answer_is_that_of_all_objectives_together():
    assert goodput([outcome()] * 459, SLO, 1.0).answer is Answer.PASSED
    few = goodput([outcome()] * 400, SLO, 1.0)
    assert (few.answer, few.num_more) == (Answer.UNDECIDED, 59)
    slow = goodput([outcome()] * 459 + [outcome(tpot_s=0.05)] * 50, SLO, 1.0)
    assert slow.answer is Answer.FAILED
    assert goodput([outcome(tpot_s=None)] * 459, SLO, 1.0).answer is Answer.UNDECIDED
    without = goodput([outcome()], parse_slo("ttft:500"), 1.0)
    assert (without.answer, without.num_more) == (None, 0)


def test_without_percentiles_nothing_can_be_met():
    found = goodput([outcome()], parse_slo("ttft:500"), 1.0)
    assert found.attainment == 1.0
    with pytest.raises(ValueError, match="name no percentile"):
        _ = found.is_met


def test_a_share_of_requests_that_hold_everything_can_be_asked_for():
    few, many = (goodput([outcome()] * num + [FAILED], parse_slo("ttft:500"), 1.0) for num in (300, 661))
    assert few.test(0.99).answer is Answer.UNDECIDED
    assert (many.test(0.99).answer, many.test(0.99).num_missed) == (Answer.PASSED, 1)


def test_no_requests_and_no_duration():
    assert goodput([], SLO, 1.0).attainment is None
    with pytest.raises(ValueError, match="no duration"):
        goodput([], SLO, 0.0)
