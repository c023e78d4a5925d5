from __future__ import annotations

from backends.startclock import StartClock
from backends.ties import START, WAKE
from tests.backends.life_rig import Remembered


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_counts_down_from_the_last_time_and_never_below_a_second() -> None:
    clock = Clock()
    start = StartClock(Remembered(start=48.0, wake=3.0), clock)
    start.reset(START)
    clock.now += 60.0  # what is prepared first does not count
    assert start.left_s() == 48.0
    start.begin()
    clock.now += 40.0
    assert start.left_s() == 8.0
    clock.now += 40.0
    assert start.left_s() == 1.0
    start.reset(WAKE)
    assert start.left_s() == 3.0
    assert StartClock(Remembered(), clock).left_s() == 1.0


def test_words() -> None:
    clock, times = Clock(), Remembered()
    start = StartClock(times, clock)
    start.reset(START)
    assert start.words("vLLM", "compiling") == "vLLM is starting: compiling"
    start.begin()
    clock.now += 7.4
    start.end()
    assert start.words("vLLM") == "vLLM is starting; the last start took 7 s"
    start.reset(WAKE)
    assert start.words("vLLM") == "vLLM is waking up"
    start.end()  # was not begun: nothing is learned
    assert times.noted == ["start"]


def test_news_are_told_once_a_second_and_the_same_again_every_five() -> None:
    clock = Clock()
    start = StartClock(Remembered(), clock)
    start.tell("a")
    clock.now += 0.9
    assert not start.is_news("b")
    clock.now += 0.1
    assert start.is_news("b")
    clock.now += 4.9
    assert not start.is_news("b")
    clock.now += 0.1
    assert start.is_news("b")
