"""Signals end an attempt at once, or are a wish."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from finetune.training.stopping import Stop, StopAsked


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = Stop()
    stop.listen()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def test_before_the_first_step_it_ends_the_attempt(stop: Stop) -> None:
    with pytest.raises(StopAsked):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.is_asked


def test_between_steps_it_is_a_wish(stop: Stop) -> None:
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_asked
    with pytest.raises(StopAsked):
        stop.raise_if_asked()


def test_no_library_can_swallow_it() -> None:
    assert not issubclass(StopAsked, Exception)
