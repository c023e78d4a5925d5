"""An engine drains, stops, sleeps and wakes."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest

from backends.base import Call
from backends.status import Drain, State, Timing
from backends.ties import Ties
from tests.backends.life_rig import (
    FAST,
    Drive,
    Remembered,
    StubBackend,
    StubSleep,
)
from tests.processes import is_alive


async def test_a_drain_by_command_waits_for_running_requests_and_no_request_starts_it_again(drive: Drive) -> None:
    running = [2]
    engine = drive(ties=Ties(num_running=lambda: running[0]))
    ready = await engine.until(State.READY)
    engine.life.drain(Drain("drained by command", is_command=True))
    await engine.until(State.DRAINING)
    await asyncio.sleep(0.3)
    assert engine.states[-1] == "draining"
    assert is_alive(ready.pid or 0)
    running[0] = 0
    stopped = await engine.until(State.STOPPED)
    assert (stopped.is_held, stopped.detail) == (True, "drained by command")
    engine.life.want()
    await asyncio.sleep(0.1)
    assert engine.states[-1] == "stopped"
    engine.life.start()
    assert not (await engine.until(State.READY, after=len(engine.history))).is_held


async def test_a_drain_is_taken_back_while_requests_run(drive: Drive) -> None:
    engine = drive(ties=Ties(num_running=lambda: 1))
    first = await engine.until(State.READY)
    engine.life.drain(Drain("drained by command", is_command=True))
    await engine.until(State.DRAINING)
    engine.life.start()
    again = await engine.until(State.READY, after=2)
    assert (again.pid, again.num_restarts) == (first.pid, 0)


async def test_requests_that_outlast_the_grace_of_a_restart_are_cut(drive: Drive) -> None:
    hasty = Timing(start_poll_s=0.02, stop_grace_s=0.3)
    engine = drive(timing=hasty, ties=Ties(num_running=lambda: 1))
    await engine.until(State.READY)
    engine.life.restart()
    second = await engine.until(State.READY, after=2)
    assert second.num_restarts == 1


async def test_an_idle_engine_that_gets_a_request_while_it_is_to_leave_stays(drive: Drive) -> None:
    """The workers know by then that it takes none: what runs was sent before."""
    engine = drive(ties=Ties(num_running=lambda: 1), backend=StubBackend(sleeps=StubSleep()))
    ready = await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    again = await engine.until(State.READY, after=2)
    assert (again.pid, again.ready_since) == (ready.pid, ready.ready_since)
    assert engine.states == ["starting", "ready", "draining", "ready"]


async def test_an_idle_engine_stops_and_a_request_starts_it(drive: Drive) -> None:
    engine = drive()
    await engine.until(State.READY)
    engine.life.drain(Drain("idle for 5 s", patience_s=0.0))
    stopped = await engine.until(State.STOPPED)
    assert (stopped.is_held, stopped.detail) == (False, "idle for 5 s")
    engine.life.want()
    await engine.until(State.READY, after=len(engine.history))


async def test_a_request_that_comes_while_it_leaves_starts_it_again(drive: Drive) -> None:
    engine = drive("--deaf", timing=Timing(start_poll_s=0.02, stop_grace_s=0.3))
    await engine.until(State.READY)
    engine.life.drain(Drain("idle", patience_s=0.0))
    await engine.until(State.DRAINING)
    engine.life.want()
    await engine.until(State.READY, after=3)
    assert engine.states == ["starting", "ready", "draining", "starting", "ready"]


async def test_sleep_and_wake_keep_the_process(drive: Drive) -> None:
    times = Remembered()
    engine = drive(backend=StubBackend(sleeps=StubSleep()), ties=Ties(times=times))
    ready = await engine.until(State.READY)
    engine.life.drain(Drain("by command", 2, is_command=True))
    asleep = await engine.until(State.ASLEEP)
    assert (asleep.pid, asleep.sleep_level, asleep.detail) == (ready.pid, 2, "asleep (level 2): by command")
    engine.life.want()
    awake = await engine.until(State.READY, after=len(engine.history))
    assert (awake.pid, awake.secret, awake.sleep_level) == (ready.pid, ready.secret, 0)
    assert engine.states == ["starting", "ready", "draining", "draining", "asleep", "starting", "ready"]
    assert [line for line in engine.life.log.tail(9) if line.startswith("/")] == ["/sleep?level=2", "/wake_up?was=2"]
    assert times.noted == ["start", "wake"]
    assert engine.history[5].detail == "stub is waking up"


async def test_an_engine_that_refuses_to_sleep_is_stopped_and_says_why(drive: Drive) -> None:
    engine = drive(backend=StubBackend(("--no-sleep", "no cumem"), sleeps=StubSleep()))
    ready = await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    stopped = await engine.until(State.STOPPED)
    assert stopped.detail == "it was to sleep, and was stopped instead: no cumem"
    assert not is_alive(ready.pid or 0)


async def test_an_engine_that_does_not_wake_is_started_anew(drive: Drive) -> None:
    engine = drive(backend=StubBackend(("--no-wake", "cuda is gone"), sleeps=StubSleep()))
    first = await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP)
    engine.life.start()
    assert "did not wake up: cuda is gone" in (await engine.until(State.BACKOFF)).detail
    second = await engine.until(State.READY, after=len(engine.history))
    assert second.pid != first.pid


async def test_an_engine_that_dies_in_its_sleep_is_stopped_and_starts_when_wanted(drive: Drive) -> None:
    engine = drive(backend=StubBackend(sleeps=StubSleep()))
    ready = await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP)
    os.kill(ready.pid or 0, signal.SIGKILL)
    stopped = await engine.until(State.STOPPED)
    assert stopped.detail == "the engine ended while it slept: killed by SIGKILL"
    engine.life.want()
    await engine.until(State.READY, after=len(engine.history))


async def test_a_sleeping_engine_can_be_stopped_and_restarted(drive: Drive) -> None:
    engine = drive(backend=StubBackend(sleeps=StubSleep()))
    first = await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP)
    engine.life.restart()
    second = await engine.until(State.READY, after=5)
    assert first.pid != second.pid
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP, after=len(engine.history))
    engine.life.drain(Drain("for another", patience_s=0.0))
    assert (await engine.until(State.STOPPED)).detail == "for another"


async def test_requests_that_outlast_a_turn_bring_it_back(drive: Drive) -> None:
    engine = drive(ties=Ties(num_running=lambda: 1))
    await engine.until(State.READY)
    engine.life.drain(Drain("it made way for b", patience_s=0.1))
    await engine.until(State.READY, after=3)
    assert engine.states == ["starting", "ready", "draining", "ready"]


async def test_a_drain_by_command_overrides_one_that_makes_way(drive: Drive) -> None:
    running = [1]
    engine = drive(ties=Ties(num_running=lambda: running[0]))
    await engine.until(State.READY)
    engine.life.drain(Drain("it made way for b", patience_s=0.3))
    await engine.until(State.DRAINING)
    engine.life.drain(Drain("drained by command", is_command=True))
    assert (await engine.until(State.DRAINING, after=3)).detail == "it takes no new requests: drained by command"
    await asyncio.sleep(0.4)
    assert engine.states[-1] == "draining"
    running[0] = 0
    stopped = await engine.until(State.STOPPED)
    assert (stopped.is_held, stopped.detail) == (True, "drained by command")


async def test_a_drain_by_command_holds_what_is_ending_already(drive: Drive) -> None:
    engine = drive("--deaf", timing=Timing(start_poll_s=0.02, stop_grace_s=0.4))
    await engine.until(State.READY)
    engine.life.drain(Drain("idle", patience_s=0.0))
    await engine.until(State.DRAINING)
    await asyncio.sleep(0.1)
    engine.life.want()
    engine.life.drain(Drain("drained by command", is_command=True))
    stopped = await engine.until(State.STOPPED)
    assert (stopped.is_held, stopped.detail) == (True, "drained by command")


async def test_a_close_is_not_undone_by_a_drain(drive: Drive) -> None:
    engine = drive("--deaf", timing=Timing(start_poll_s=0.02, stop_grace_s=0.3), ties=Ties(num_running=lambda: 1))
    await engine.until(State.READY)
    engine.life.close()
    await engine.until(State.DRAINING)
    engine.life.drain(Drain("drained by command", is_command=True))
    async with asyncio.timeout(3):
        await engine.task


async def test_an_engine_that_was_to_sleep_by_command_and_cannot_is_started_by_a_request(drive: Drive) -> None:
    engine = drive(backend=StubBackend(("--no-sleep", "no cumem"), sleeps=StubSleep()))
    await engine.until(State.READY)
    engine.life.drain(Drain("by command; the next request wakes it", 1, is_command=True))
    assert not (await engine.until(State.STOPPED)).is_held
    engine.life.want()
    await engine.until(State.READY, after=len(engine.history))


class SlowSleep(StubSleep):
    def __init__(self, fall_s: float = 0.0, wake_s: float = 0.0) -> None:
        self.fall_s, self.wake_s = fall_s, wake_s

    async def sleep(self, call: Call, level: int) -> None:
        await asyncio.sleep(self.fall_s)
        await super().sleep(call, level)

    async def wake(self, call: Call, level: int) -> None:
        await asyncio.sleep(self.wake_s)
        await super().wake(call, level)


@pytest.mark.parametrize("flags", [("--no-sleep", "no cumem"), ()])
async def test_a_recall_while_it_falls_asleep_brings_it_back(drive: Drive, flags: tuple[str, ...]) -> None:
    engine = drive(backend=StubBackend(flags, sleeps=SlowSleep(fall_s=0.2)))
    first = await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.DRAINING, after=3)
    engine.life.start()
    again = await engine.until(State.READY, after=4)
    assert (again.pid == first.pid) == (not flags)
    assert "stopped" not in engine.states


@pytest.mark.parametrize(("start_timeout_s", "end"), [(10.0, State.READY), (0.2, State.BACKOFF)])
async def test_waking_takes_as_long_as_a_start_may(drive: Drive, start_timeout_s: float, end: State) -> None:
    timing = replace(FAST, sleep_timeout_s=0.1, start_timeout_s=10.0)
    engine = drive(backend=StubBackend(sleeps=SlowSleep(wake_s=0.4)), timing=timing)
    await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP)
    engine.life._timing = replace(timing, start_timeout_s=start_timeout_s)
    engine.life.start()
    await engine.until(end, after=len(engine.history))
    assert ("backoff" in engine.states) == (end is State.BACKOFF)
