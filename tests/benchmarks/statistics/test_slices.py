import random

import pytest

from benchmarks.statistics import bootstrap
from benchmarks.statistics.slices import per_second
from benchmarks.statistics.steady import Window


def test_amounts_fall_into_their_slices():
    events = [(9.9, 100.0), (10.0, 1.0), (10.4, 2.0), (10.5, 4.0), (11.9, 8.0), (12.0, 100.0)]
    assert per_second(events, Window(10.0, 12.0), 4) == [6.0, 8.0, 0.0, 16.0]


def test_the_mean_is_the_rate_and_its_interval_holds_it():
    rng, at, events = random.Random(1), 0.0, []
    while at < 100:
        at += rng.expovariate(50)
        events.append((at, 2.0))
    found = bootstrap.mean([per_second(events, Window(0.0, 100.0))])
    assert found.estimate == pytest.approx(2 * sum(moment < 100 for moment, _ in events) / 100)
    assert found.contains(100.0)


def test_no_slices():
    with pytest.raises(ValueError, match="no slices"):
        per_second([], Window(1.0, 1.0))
