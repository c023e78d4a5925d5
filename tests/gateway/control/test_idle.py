from __future__ import annotations

from gateway.control.idle import Idle


def test_idle_counts_from_the_last_request_also_from_one_that_nobody_saw_running() -> None:
    idle = Idle()
    assert idle.look("a", 0, 5, now=10.0) == 0.0
    assert idle.look("a", 0, 5, now=14.0) == 4.0
    assert idle.look("a", 2, 6, now=20.0) == 0.0
    assert idle.look("a", 1, 6, now=90.0) == 0.0  # a long one
    assert idle.look("a", 0, 6, now=91.0) == 1.0
    assert idle.look("a", 0, 7, now=95.0) == 0.0  # began and ended in between
    assert idle.look("a", 0, 3, now=99.0) == 0.0  # a worker died, and its counts went with it
    assert idle.last_use("a") == 99.0


def test_it_is_not_idle_from_before_it_came_up() -> None:
    idle = Idle()
    idle.look("a", 0, 5, now=10.0)
    idle.begin("a", now=500.0)
    assert idle.look("a", 0, 5, now=501.0) == 1.0
    assert idle.last_use("other") == 0.0
