import math
import random
import statistics

import pytest

from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.lengths import Length, LognormalLength, parse_length


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("128", Length(128, 128), "128"),
        ("64-256", Length(64, 256), "64-256"),
        ("lognormal:550,0.8,16-4096", LognormalLength(550, 0.8, 16, 4096), "lognormal:550,0.8,16-4096"),
        ("lognormal:100,0", LognormalLength(100, 0, 1, 100), "lognormal:100,0,1-100"),
    ],
)
def test_forms(text: str, expected: object, shown: str):
    assert parse_length(text) == expected
    assert str(parse_length(text)) == shown
    assert parse_length(shown) == expected


def test_cv_is_that_of_the_lengths():
    length = parse_length("lognormal:1000,cv=0.5,1-100000000")
    assert isinstance(length, LognormalLength)
    assert math.sqrt(math.expm1(length.sigma**2)) == pytest.approx(0.5)
    drawn = [length.draw(rng) for rng in [random.Random(0)] for _ in range(20_000)]
    assert statistics.mean(drawn) == pytest.approx(1000, rel=0.02)
    assert statistics.stdev(drawn) / statistics.mean(drawn) == pytest.approx(0.5, rel=0.05)


def test_draws_stay_within_the_limits():
    length = parse_length("lognormal:100,2,50-150")
    drawn = {length.draw(rng) for rng in [random.Random(1)] for _ in range(500)}
    assert (min(drawn), max(drawn)) == (50, 150) == (length.low, length.high)


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "9-3", "lognormal:", "lognormal:5", "lognormal:a,1", "lognormal:5,cv=x", "lognormal:0,1",
     "lognormal:5,-1", "lognormal:5,1,9-3", "lognormal:5,1,1-9,2", "lognormal:inf,1", "lognormal:5,cv=1e400"],
)  # fmt: skip
def test_what_is_no_length(text: str):
    with pytest.raises(WorkloadError, match="no length"):
        parse_length(text)
