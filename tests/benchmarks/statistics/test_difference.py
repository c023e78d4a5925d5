import math
import random
from dataclasses import replace

import pytest

from benchmarks.statistics import bootstrap
from benchmarks.statistics.coverage import Autoregressive, Campaign
from benchmarks.statistics.difference import Verdict, compare, judged, paired
from benchmarks.statistics.interval import Interval

A = Interval(100.0, 95.0, 105.0, 0.95, 300, 3, 100.0)


def scaled(factor: float) -> Interval:
    return replace(A, estimate=100 * factor, low=95 * factor, high=105 * factor)


def test_higher_is_better_or_worse():
    assert compare(A, scaled(1.2), is_higher_better=True).verdict is Verdict.BETTER
    assert compare(A, scaled(1.2), is_higher_better=False).verdict is Verdict.WORSE
    assert compare(A, scaled(0.8), is_higher_better=True).verdict is Verdict.WORSE
    assert compare(A, scaled(0.8), is_higher_better=False).verdict is Verdict.BETTER


def test_an_interval_that_holds_one_shows_no_difference():
    found = compare(A, scaled(1.05), is_higher_better=True)
    assert found.verdict is Verdict.NO_DIFFERENCE
    assert found.sentence() == "1.05x (0.978 to 1.13, 95%): no difference shown"


def test_widths_add_like_errors_that_are_independent():
    found = compare(A, scaled(1.0), is_higher_better=True).ratio
    assert found.low is not None
    assert found.high is not None
    assert math.log(found.high) == pytest.approx(math.hypot(math.log(1.05), math.log(1 / 0.95)))
    assert found.low * found.high == pytest.approx(1.0), "the log of a ratio has no preferred side"


def test_the_other_way_round_is_the_reciprocal():
    there, back = compare(A, scaled(1.3), True).ratio, compare(scaled(1.3), A, True).ratio
    assert back.low is not None
    assert there.high is not None
    assert back.low == pytest.approx(1 / there.high)


def test_an_open_interval_shows_no_difference():
    found = compare(replace(A, high=None), scaled(0.2), is_higher_better=True)
    assert found.ratio.low is None
    assert found.verdict is Verdict.WORSE, "its other end shows it"
    assert compare(A, replace(scaled(2.0), low=None), is_higher_better=True).verdict is Verdict.NO_DIFFERENCE
    assert "open" in compare(A, replace(scaled(2.0), low=None), is_higher_better=True).sentence()


def test_the_ratio_of_results_measured_apart_holds_the_truth():
    rng, held = random.Random(1), 0
    a, b = Campaign(Autoregressive(), 150), Campaign(Autoregressive(mean=1.1), 150)
    for _ in range(100):
        first, second = (bootstrap.mean(one.repeats(rng), num_replicates=150) for one in (a, b))
        held += compare(first, second, is_higher_better=False).ratio.contains(1.1)
    assert held / 100 >= 0.92


def test_what_is_not_different_is_seldom_called_so():
    rng, called = random.Random(2), 0
    a = Campaign(Autoregressive(), 150)
    for _ in range(100):
        first, second = (bootstrap.mean(a.repeats(rng), num_replicates=150) for _ in range(2))
        called += compare(first, second, is_higher_better=False).verdict is not Verdict.NO_DIFFERENCE
    assert called / 100 <= 0.08


def test_pairs_take_out_what_moves_both():
    drift = (1.0, 1.5, 2.5, 4.0)
    noise = (1.01, 0.99, 1.0, 1.02)
    pairs = [(100 * d, 110 * d * n) for d, n in zip(drift, noise, strict=True)]
    found = paired(pairs, is_higher_better=True)
    assert found.verdict is Verdict.BETTER
    assert found.ratio.estimate == pytest.approx(1.1, rel=0.01)
    logs = [math.log(b / a) for a, b in pairs]
    centre = sum(logs) / 4
    spread = math.sqrt(sum((value - centre) ** 2 for value in logs) / 3 / 4)
    assert found.ratio.high == pytest.approx(math.exp(centre + 3.182446 * spread), rel=1e-6)


def test_the_same_requests_side_by_side():
    rng = random.Random(3)
    a = [[rng.lognormvariate(0, 1) for _ in range(300)] for _ in range(3)]
    b = [[value * 0.97 * rng.uniform(0.95, 1.05) for value in one] for one in a]
    assert judged(bootstrap.ratio(b, a), is_higher_better=False).verdict is Verdict.BETTER
    apart = compare(bootstrap.mean(a), bootstrap.mean(b), is_higher_better=False)
    assert apart.verdict is Verdict.NO_DIFFERENCE, "taken apart, what the requests have in common hides it"


@pytest.mark.parametrize(
    ("pairs", "words"), [([(1.0, 2.0)] * 2, "at least 3"), ([(1.0, 2.0), (0.0, 1.0), (1.0, 1.0)], "0 or below")]
)
def test_pairs_that_show_nothing(pairs: list[tuple[float, float]], words: str):
    with pytest.raises(ValueError, match=words):
        paired(pairs, is_higher_better=True)


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="different levels"):
        compare(A, replace(A, level=0.9), is_higher_better=True)
    with pytest.raises(ValueError, match="no ratio of 100 to 0"):
        compare(replace(A, estimate=0.0), A, is_higher_better=True)
