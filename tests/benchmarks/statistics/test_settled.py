import math
import random
from dataclasses import replace

import pytest

from benchmarks.statistics import bootstrap
from benchmarks.statistics.coverage import Autoregressive
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.settled import settling

NARROW = Interval(100.0, 96.0, 104.0, 0.95, 3000, 3, 300.0)
WIDE = replace(NARROW, low=90.0, high=110.0)


def test_a_narrow_interval_of_three_repeats_is_settled():
    found = settling(NARROW)
    assert found.is_settled
    assert found.more_s(60.0) == 0
    assert found.sentence(60.0) == "settled: +-4.0%"


def test_the_farther_end_counts():
    assert not settling(replace(NARROW, high=105.1)).is_settled
    assert settling(replace(NARROW, high=105.0)).is_settled


def test_twice_as_wide_takes_four_times_as_long():
    found = settling(WIDE)
    assert not found.is_settled
    assert found.times_longer == pytest.approx(4.0)
    assert found.repeats_needed == 12
    assert found.more_s(60.0) == pytest.approx(180.0)
    assert found.sentence(60.0) == (
        "not settled: +-10.0%, wanted +-5%; about 180 s more: 4.0 times the length or 12 repeats in all"
    )


def test_what_it_says_comes_true():
    rng = random.Random(2)
    process = Autoregressive(spread=1.0)
    short = settling(bootstrap.mean([process.series(200, rng) for _ in range(3)]))
    assert short.times_longer is not None
    assert short.times_longer > 2
    longer = settling(bootstrap.mean([process.series(int(200 * short.times_longer), rng) for _ in range(3)]))
    assert longer.relative_half_width == pytest.approx(short.limit, rel=0.3)


def test_fewer_than_three_repeats_are_never_settled():
    found = settling(replace(NARROW, num_repeats=2))
    assert not found.is_settled
    assert found.repeats_needed == 3
    assert found.more_s(60.0) == pytest.approx(30.0)


def test_where_repeats_differ_only_more_of_them_help():
    found = settling(replace(WIDE, is_between_repeats=True))
    assert found.times_longer is None
    # t(2) / sqrt(3) = 2.48 shrinks to t(4) / sqrt(5) = 1.24 or less
    assert found.repeats_needed == 5
    assert "5 repeats in all" in found.sentence(60.0)
    assert "the length" not in found.sentence(60.0)


def test_an_open_interval_asks_for_more_samples():
    found = settling(replace(NARROW, high=None))
    assert not found.is_settled
    assert math.isinf(found.relative_half_width)
    assert found.more_s(60.0) is None
    assert "too few samples" in found.sentence(60.0)
