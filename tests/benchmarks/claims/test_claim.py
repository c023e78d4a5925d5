"""What a ratio makes of a claim."""

from __future__ import annotations

import pytest

from benchmarks.claims.claim import Claim, Verdict, exact, judge
from benchmarks.statistics.interval import Interval

TWICE = Claim("somebody", "twice as fast", 2, 3)


def ratio(low: float | None, high: float | None) -> Interval:
    return Interval(2.0, low, high, 0.95, 5, 5, 5.0, True)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (2.0, 2.4, Verdict.HELD),
        (3.5, 4.0, Verdict.HELD),  # more than is said is no fault
        (1.9, 2.4, Verdict.NOT_SHOWN),
        (1.2, 1.99, Verdict.NOT_HELD),
        (1.2, 2.0, Verdict.NOT_SHOWN),
        (None, 4.0, Verdict.NOT_SHOWN),
        (2.5, None, Verdict.HELD),
    ],
)
def test_the_whole_interval_decides(low: float | None, high: float | None, verdict: Verdict) -> None:
    assert judge(TWICE, "8 streams", "output tok/s", ratio(low, high)).verdict is verdict


def test_a_run_that_is_not_valid_shows_nothing() -> None:
    found = judge(TWICE, "8 streams", "output tok/s", ratio(2.5, 3.0), ["paged, turn 1: 3 requests failed"])
    assert found.verdict is Verdict.NOT_SHOWN
    assert found.as_dict()["faults"] == ["paged, turn 1: 3 requests failed"]


def test_without_a_figure_nothing_is_shown() -> None:
    found = judge(TWICE, "8 streams", "itl s p99", None)
    assert found.verdict is Verdict.NOT_SHOWN
    assert found.as_dict()["ratio"] is None


def test_what_is_counted_is_its_own_interval() -> None:
    assert judge(TWICE, "F16 / Q4_K_M", "bytes", exact(2.0)).verdict is Verdict.HELD
    assert judge(TWICE, "F16 / Q8_0", "bytes", exact(1.9)).verdict is Verdict.NOT_HELD
