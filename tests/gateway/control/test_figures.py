from __future__ import annotations

import re

import pytest

from gateway.control.desired import Watch
from gateway.control.figures import Figures, Traffic, breach, newest_of
from gateway.snapshot import Share, Tally
from gateway.ttft import bucket_of

WATCH = Watch(0.02, 1.5, 100, 300.0, "ann", 1.0)


def figures(num: int, num_errors: int = 0, ms: float = 40.0) -> Figures:
    return Figures(num, num_errors, {bucket_of(ms): num - num_errors} if num > num_errors else {})


@pytest.mark.parametrize(
    ("newest", "before", "words"),
    [
        (figures(200, 4), figures(200), ""),  # 2 % is allowed
        (figures(200, 5), figures(200), r"errors: 5 of 200 requests \(2.5%\), more than 0.02; before: 0 of 200"),
        (figures(200, 5), Figures(), r"errors: 5 of 200 requests \(2.5%\), more than 0.02; in a window"),
        (figures(99, 99), figures(200), ""),  # too few
        (figures(100, 100), figures(200), "errors: 100 of 100"),
        (figures(200, 50), figures(200, 50), ""),  # what was live before fails as often: going back mends nothing
        (figures(200, 51), figures(200, 50), "errors: 51 of 200"),
        (figures(200, 50), figures(99, 99), "errors: 50 of 200"),  # too few to say
        (figures(200, ms=58.0), figures(200, ms=40.0), ""),
        (
            figures(200, ms=90.0),
            figures(200, ms=40.0),
            r"median time to first byte: 8\d.\d ms, 2.\d\d times the 4\d.\d ms",
        ),
        (figures(200, ms=90.0), figures(99, ms=40.0), ""),
        (figures(200, ms=90.0), Figures(), ""),
        (figures(150, 60, ms=900.0), figures(200, 190, ms=40.0), ""),  # of before too few were answered
        (figures(200, ms=10.0), figures(200, ms=40.0), ""),
    ],
)
def test_when_it_is_bad_enough(newest: Figures, before: Figures, words: str) -> None:
    found = breach(WATCH, newest, before, "in a window")
    assert re.search(words, found) if words else not found


def test_limits_can_be_switched_off() -> None:
    lenient = Watch(1.0, 1000.0, 1, 300.0, "ann", 1.0)
    assert breach(lenient, figures(200, 200), figures(200), "") == ""
    assert breach(lenient, figures(200, ms=9000.0), figures(200, ms=40.0), "") == ""


def test_traffic_is_kept_by_alias_version_and_time() -> None:
    traffic = Traffic()
    for second in range(10):
        traffic.add("s", "s@1", Tally("s", "s@1", 3, 1, {5: 2}), float(second))
        traffic.add("s", "s@2", Tally("s", "s@2", 1, 0, {7: 1}), float(second))
    assert traffic.between("s", ["s@1"], 2.0, 4.0) == Figures(9, 3, {5: 6})
    assert traffic.between("s", ["s@1", "s@2"], 9.0, 99.0) == Figures(4, 1, {5: 2, 7: 1})
    assert traffic.between("t", ["s@1"], 0.0, 99.0) == Figures()
    traffic.forget(8.0)
    assert traffic.between("s", ["s@1"], 0.0, 99.0).num_requests == 6
    traffic.forget(99.0)
    assert not traffic._slots


def test_several_workers_share_a_second() -> None:
    traffic = Traffic()
    for at in (1.0, 1.2, 1.9, 2.5):
        traffic.add("s", "s@1", Tally("s", "s@1", 1, 0, {}), at)
    assert [figures.num_requests for _, figures in traffic._slots["s", "s@1"]] == [3, 1]


def test_the_newest_are_those_that_were_not_there_before() -> None:
    a, b, c = Share("a"), Share("b"), Share("c")
    assert newest_of((a, b), (a,)) == ["b"]
    assert newest_of((b,), (a,)) == ["b"]
    assert newest_of((a,), (a, c)) == []
