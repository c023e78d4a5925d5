import itertools
import math
import random
import statistics

import pytest

from benchmarks.traffic.arrivals import Arrivals, ExponentialRamp, LinearRamp, Shape, Spacing, Steady, parse_ramp
from benchmarks.traffic.errors import WorkloadError


def gaps(arrivals: Arrivals, num: int = 20_000) -> list[float]:
    due = arrivals.first(num, random.Random(7))
    return [later - earlier for earlier, later in itertools.pairwise(due)]


def test_constant_arrivals_are_evenly_spaced_from_the_start_on():
    assert Arrivals(Steady(4), Spacing.parse("constant")).first(3, random.Random()) == [0, 0.25, 0.5]


@pytest.mark.parametrize(("text", "cv"), [("poisson", 1.0), ("gamma:0.25", 2.0), ("gamma:4", 0.5)])
def test_gamma_has_the_rate_and_the_burstiness(text: str, cv: float):
    found = gaps(Arrivals(Steady(50), Spacing.parse(text)))
    assert statistics.mean(found) == pytest.approx(1 / 50, rel=0.03)
    assert statistics.stdev(found) / statistics.mean(found) == pytest.approx(cv, rel=0.05)
    assert str(Spacing.parse(text)) == text


@pytest.mark.parametrize(
    "ramp", [LinearRamp(5, 45, 20), LinearRamp(45, 5, 20), ExponentialRamp(5, 45, 20), ExponentialRamp(9, 9, 20)]
)
def test_a_ramp_has_its_first_rate_its_last_and_its_sum(ramp: LinearRamp | ExponentialRamp):
    num = ramp.mean_rate * ramp.length_s
    assert ramp.due_s(0) == 0
    assert ramp.due_s(num) == pytest.approx(ramp.length_s)
    assert 1e-6 / ramp.due_s(1e-6) == pytest.approx(ramp.first, rel=1e-3)
    assert 1 / (ramp.due_s(num + 1) - ramp.due_s(num)) == pytest.approx(ramp.last)
    halfway_s = ramp.due_s(num / 2)
    assert num / 2 == pytest.approx(_integral(ramp, halfway_s), rel=1e-3)


def _integral(ramp: LinearRamp | ExponentialRamp, end_s: float, steps: int = 10_000) -> float:
    """Of the rate over time, by the midpoint rule."""
    share = [(step + 0.5) / steps * end_s / ramp.length_s for step in range(steps)]
    if isinstance(ramp, LinearRamp):
        rates = [ramp.first + (ramp.last - ramp.first) * each for each in share]
    else:
        rates = [ramp.first * (ramp.last / ramp.first) ** each for each in share]
    return math.fsum(rates) * end_s / steps


def test_until_holds_all_before_the_end_and_agrees_with_first():
    arrivals = Arrivals(LinearRamp(10, 100, 5))
    due = arrivals.until(5, random.Random(3))
    assert due == arrivals.first(len(due), random.Random(3))
    assert due[-1] < 5 <= arrivals.first(len(due) + 1, random.Random(3))[-1]
    assert len(due) == pytest.approx(275, rel=0.2)


def test_the_same_seed_gives_the_same_times_and_another_rate_only_stretches_them():
    slow, fast = (Arrivals(Steady(rate)).first(50, random.Random("seed")) for rate in (10, 20))
    assert slow == pytest.approx([2 * due_s for due_s in fast])


def test_forms():
    assert parse_ramp("linear:1-50", 10) == LinearRamp(1, 50, 10)
    assert parse_ramp("exponential:0.5-8", 10) == ExponentialRamp(0.5, 8, 10)
    assert Spacing.parse("constant").shape is Shape.CONSTANT


@pytest.mark.parametrize("text", ["", "uniform", "gamma", "gamma:0", "gamma:x", "gamma:inf", "poisson:2"])
def test_what_is_no_arrivals(text: str):
    with pytest.raises(WorkloadError, match="no kind of arrivals"):
        Spacing.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("linear", "no ramp"),
        ("cubic:1-2", "no ramp"),
        ("linear:1-x", "no ramp"),
        ("linear:0-5", "above 0"),
        ("linear:5-0", "above 0"),
    ],
)
def test_what_is_no_ramp(text: str, says: str):
    with pytest.raises(WorkloadError, match=says):
        parse_ramp(text, 10)


def test_impossible_rates():
    for rate in (0, -1, math.inf, math.nan):
        with pytest.raises(WorkloadError, match="above 0"):
            Steady(rate)
    with pytest.raises(WorkloadError, match="more than"):
        Arrivals(Steady(1e6)).until(1e6, random.Random())
    with pytest.raises(WorkloadError, match="longer than 0 s"):
        LinearRamp(1, 2, 0)
