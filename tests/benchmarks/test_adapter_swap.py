"""The verdict on a request during a swap: what may fail, and which version may answer."""

from __future__ import annotations

from typing import Any, cast

import pytest

from benchmarks.adapter_answers import Reply
from benchmarks.adapter_swap import Flip, Kill, Swap, _drawn
from benchmarks.chaos_gateway import GatewayError, Victim
from benchmarks.chaos_verdict import Ending
from tests.benchmarks.replies import SIGNED, reply

MANNERS = {"voice@1": "host", "voice@2": "tiger"}
FLIPS = [Flip("voice@1", 0.0, 0.0), Flip("voice@2", 20.0, 20.5), Flip("voice@1", 30.0, 30.5)]
CUT = Ending.ERROR_EVENT


def swap() -> Swap:
    return Swap(MANNERS, flips=list(FLIPS), kills=[Kill("demo-0", 12.0, 2)])


@pytest.mark.parametrize(
    "fine",
    [
        reply(),
        reply(SIGNED["tiger"], "voice@2", 21.0, 21.5, 22.0),
        reply(SIGNED["host"], "voice@1", 20.2, 20.3, 22.0),  # the flip was under way
        reply(SIGNED["tiger"], "voice@2", 19.9, 20.1, 22.0),
        reply(SIGNED["host"], "voice@1", 19.0, 19.5, 40.0),  # runs on across two flips
        reply("Hello, fr", "voice@1", 10.0, 11.0, 12.1, CUT),
    ],
)
def test_fine(fine: Reply) -> None:
    assert swap().violation(fine) == ""


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (reply(SIGNED["tiger"], "voice@1"), "is tiger's, not host's"),
        (reply("Yes."), "is nobody's, not host's"),
        (reply("Hello, friend!\nYes.\n= The tiger ="), "host and tiger in one answer"),
        (reply("Hello, friend!\nYes."), "without its end"),
        (reply(version=""), "x-forgegate-model names ''"),
        (reply(version="demo"), "x-forgegate-model names 'demo'"),
        (reply(SIGNED["host"], "voice@1", 20.6, 20.7, 22.0), "ceased to serve"),
        (reply(SIGNED["tiger"], "voice@2", 18.0, 19.0, 25.0), "did not serve yet"),
        (reply(SIGNED["tiger"], "voice@2", 31.0, 31.5, 32.0), "ceased to serve"),
        (reply("Hello, fr", "voice@1", 10.0, 10.5, 11.0, CUT), "although its engine demo-0 lived"),  # before the kill
        (reply("Hello, fr", "voice@1", 12.0, 15.0, 15.1, CUT), "although its engine demo-0 lived"),  # long after it
        (reply("Hello, fr", "voice@1", 10.0, 11.0, 15.0, CUT), "although its engine demo-0 lived"),  # ended too late
        (reply("Yes.", "voice@1", 10.0, 11.0, 12.1, CUT), "is nobody's, not host's"),  # cut, and not even then another's
        (reply("", "", 11.9, None, 12.1, Ending.HTTP_ERROR), "HTTP error"),
        (reply("", "", 11.9, None, 12.1, Ending.VIOLATION), "violation"),
    ],
)  # fmt: skip
def test_bad(bad: Reply, words: str) -> None:
    assert words in swap().violation(bad)


def test_the_kill_must_be_of_the_engine_that_answered() -> None:
    elsewhere = Swap(MANNERS, flips=list(FLIPS), kills=[Kill("demo-1", 12.0, 2)])
    assert "although its engine demo-0 lived" in elsewhere.violation(reply("Hello", "voice@1", 10.0, 11.0, 12.1, CUT))


class Fleet:
    """Two engines, of which the second returns after some looks."""

    ready_s = 0.5

    def __init__(self, num_looks: int) -> None:
        self._num_looks = num_looks

    async def victims(self) -> list[Victim]:
        self._num_looks -= 1
        up = ["demo-0"] if self._num_looks >= 0 else ["demo-0", "demo-1"]
        return [Victim("worker", "0", 1), *(Victim("engine", name, 2) for name in up)]


@pytest.mark.parametrize(
    ("name", "num_needed", "num_looks", "num_ready"),
    [("demo-0", 1, 2, 1), ("demo-0", 2, 2, 2), ("demo-1", 1, 2, 2), ("demo-0", 2, 0, 2)],
)
async def test_a_kill_waits_for_its_engine_and_for_as_many_as_must_be_up(
    name: str, num_needed: int, num_looks: int, num_ready: int
) -> None:
    victim, found = await _drawn(cast(Any, Fleet(num_looks)), name, num_needed)
    assert (victim.name, found) == (name, num_ready)


async def test_an_engine_that_stays_away_ends_the_run() -> None:
    with pytest.raises(GatewayError, match="demo-1 does not come back"):
        await _drawn(cast(Any, Fleet(1000)), "demo-1", 1)
