"""How a start waits for its admission, and what is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backends import pause
from backends.restart import RestartPolicy
from backends.status import Drain, State, Status, Timing
from backends.ties import Ties
from tests.backends.life_rig import (
    IMPATIENT,
    Drive,
    Driven,
    Remembered,
    StubBackend,
    StubSleep,
    Turnstile,
)

ASKED = replace(IMPATIENT, retries_starts=False)
"""Of an engine that runs on demand."""
PAUSING = replace(ASKED, first_pause_s=0.3, max_pause_s=60.0)
"""For long enough to be asked meanwhile."""
FAILING = ("--says", "for now: the memory is taken", "--crash", "x")


async def resumed(engine: Driven) -> Status:
    """Once its pause is over."""
    async with asyncio.timeout(10):
        while engine.history[-1].is_paused:
            engine.news.clear()
            await engine.news.wait()
    return engine.history[-1]


async def test_it_waits_at_the_gate_and_leaves_it_once_it_is_ready(drive: Drive) -> None:
    gate = Turnstile()
    engine = drive(ties=Ties(gate=gate))
    while not gate.log:
        await asyncio.sleep(0.01)
    gate.tell("waits for demo-1")
    while engine.history[-1].detail != "waits for demo-1":
        await asyncio.sleep(0.01)
    assert engine.history[-1].pid is None
    gate.answers.put_nowait("")
    await engine.until(State.READY)
    assert gate.log == ["enter", "leave"]


async def test_a_start_that_is_not_let_in_ends_stopped_and_may_be_wanted_again_after_a_pause(drive: Drive) -> None:
    gate = Turnstile()
    engine = drive(ties=Ties(gate=gate), policy=PAUSING)
    gate.answers.put_nowait("no room: demo-1 is busy")
    stopped = await engine.until(State.STOPPED)
    assert stopped.detail == "no room: demo-1 is busy; the next request after a pause tries again"
    assert (stopped.num_failed_starts, stopped.is_paused) == (1, True)
    assert 0.0 < stopped.retry_after_s <= PAUSING.first_pause_s
    engine.life.want()
    assert (await resumed(engine)).detail == "no room: demo-1 is busy; the next request tries again"
    assert engine.states.count("starting") == 1
    engine.life.want()
    gate.answers.put_nowait("")
    await engine.until(State.READY)


async def test_a_start_that_fails_for_a_known_reason_is_counted_and_tried_again_when_somebody_asks(
    drive: Drive,
) -> None:
    backend = StubBackend(FAILING)
    engine = drive(backend=backend, policy=ASKED)
    stopped = await engine.until(State.STOPPED)
    assert stopped.detail == "the memory is taken; the next request after a pause tries again"
    assert (stopped.num_failed_starts, stopped.is_paused) == (1, True)
    assert (await resumed(engine)).detail == "the memory is taken; the next request tries again"
    assert len(backend.ports) == 1
    engine.life.want()
    again = await engine.until(State.STOPPED, after=len(engine.history))
    assert (again.num_failed_starts, len(backend.ports)) == (2, 2)


async def test_a_start_that_takes_too_long_is_tried_again_when_somebody_asks(drive: Drive) -> None:
    timing = Timing(start_timeout_s=0.5, start_poll_s=0.05)
    engine = drive("--start-s", "60", timing=timing, policy=ASKED)
    stopped = await engine.until(State.STOPPED)
    assert "not ready within 0.5 s" in stopped.detail
    assert stopped.detail.endswith("; the next request after a pause tries again")
    assert (stopped.num_failed_starts, stopped.pid) == (1, None)


async def test_requests_start_nothing_while_it_pauses_and_a_command_does(drive: Drive) -> None:
    backend = StubBackend(FAILING)
    engine = drive(backend=backend, policy=replace(ASKED, first_pause_s=60.0, max_pause_s=60.0))
    stopped = await engine.until(State.STOPPED)
    assert 55.0 < stopped.retry_after_s <= 60.0
    for _ in range(5):
        engine.life.want()
        await asyncio.sleep(0.02)
    assert engine.states == ["starting", "stopped"]
    backend.flags = ()
    engine.life.start()
    ready = await engine.until(State.READY)
    assert (ready.is_paused, len(backend.ports)) == (False, 2)


async def test_a_drain_by_command_ends_the_pause_and_holds_it(drive: Drive) -> None:
    engine = drive(backend=StubBackend(FAILING), policy=replace(ASKED, first_pause_s=60.0, max_pause_s=60.0))
    await engine.until(State.STOPPED)
    engine.life.drain(Drain("by command", is_command=True))
    held = await engine.until(State.STOPPED, after=2)
    assert (held.detail, held.is_held, held.is_paused, held.retry_after_s) == ("by command", True, False, 1.0)


async def test_pauses_double_until_a_start_goes_well(drive: Drive) -> None:
    backend = StubBackend(FAILING)
    engine = drive(backend=backend, policy=replace(ASKED, first_pause_s=0.4, max_pause_s=60.0))
    told = [(await engine.until(State.STOPPED)).retry_after_s]

    async def ask(*flags: str) -> Status:
        """By a request, once it may; the start's end."""
        await resumed(engine)
        backend.flags, num_seen = flags, len(engine.history)
        engine.life.want()
        return await engine.until(State.STOPPED if flags else State.READY, after=num_seen)

    told.append((await ask(*FAILING)).retry_after_s)
    await ask()
    num_seen = len(engine.history)
    engine.life.drain(Drain("idle", patience_s=0.0))
    await engine.until(State.STOPPED, after=num_seen)
    told.append((await ask(*FAILING)).retry_after_s)
    assert told[0] <= 0.4 < told[1] <= 0.8
    assert told[2] <= 0.4


async def test_what_is_left_of_a_pause_is_told(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "RETELL_S", 0.05)
    engine = drive(backend=StubBackend(FAILING), policy=replace(ASKED, first_pause_s=0.3, max_pause_s=0.3))
    await engine.until(State.STOPPED)
    over = await resumed(engine)
    left_s = [status.retry_after_s for status in engine.history if status.is_paused]
    assert len(left_s) >= 3
    assert left_s == sorted(left_s, reverse=True)
    assert (over.state, over.is_paused, over.retry_after_s) == (State.STOPPED, False, 1.0)


async def test_a_crash_for_no_known_reason_is_no_failed_start(drive: Drive) -> None:
    engine = drive("--crash", "x", policy=ASKED)
    assert (await engine.until(State.BACKOFF)).num_failed_starts == 0
    assert (await engine.until(State.FAILED)).num_failed_starts == 0


async def test_a_stop_at_the_gate_takes_it_out_of_the_line(drive: Drive) -> None:
    gate = Turnstile()
    engine = drive(ties=Ties(gate=gate))
    while not gate.log:
        await asyncio.sleep(0.01)
    engine.life.stop()
    await engine.until(State.STOPPED)
    assert sorted(gate.log[:3]) == ["cancelled", "enter", "leave"]


async def refused_wake(drive: Drive, policy: RestartPolicy) -> tuple[Driven, Turnstile]:
    """An engine that a request was to wake, and that was not let in."""
    gate = Turnstile()
    engine = drive(backend=StubBackend(sleeps=StubSleep()), ties=Ties(gate=gate), policy=policy)
    gate.answers.put_nowait("")
    await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP)
    num_seen = len(engine.history)
    engine.life.want()
    gate.answers.put_nowait("no room")
    again = await engine.until(State.ASLEEP, after=num_seen)
    assert again.detail == "asleep (level 1): no room; the next request after a pause tries again"
    assert (again.num_failed_starts, again.is_paused) == (1, True)
    return engine, gate


async def test_waking_passes_the_gate_and_what_is_not_let_in_sleeps_on_for_a_pause(drive: Drive) -> None:
    engine, gate = await refused_wake(drive, PAUSING)
    num_starts = engine.states.count("starting")
    engine.life.want()
    assert (await resumed(engine)).detail == "asleep (level 1): no room; the next request tries again"
    assert engine.states.count("starting") == num_starts
    engine.life.want()
    gate.answers.put_nowait("")
    ready = await engine.until(State.READY, after=len(engine.history))
    assert not ready.is_paused


async def test_a_command_wakes_what_pauses(drive: Drive) -> None:
    engine, gate = await refused_wake(drive, replace(PAUSING, first_pause_s=60.0))
    engine.life.start()
    gate.answers.put_nowait("")
    ready = await engine.until(State.READY, after=len(engine.history))
    assert (ready.is_paused, ready.num_restarts) == (False, 0)


async def test_what_sleeps_for_a_pause_and_makes_way_pauses_on(drive: Drive) -> None:
    engine, _ = await refused_wake(drive, replace(PAUSING, first_pause_s=60.0))
    engine.life.drain(Drain("it made way for demo-1", patience_s=0.0))
    engine.life.want()
    stopped = await engine.until(State.STOPPED)
    assert (stopped.detail, stopped.is_paused) == ("it made way for demo-1", True)
    assert 55.0 < stopped.retry_after_s <= 60.0
    engine.life.want()
    await asyncio.sleep(0.1)
    assert engine.states[-1] == "stopped"


@pytest.mark.slow
async def test_progress_and_the_last_duration_are_told_and_retry_after_counts_down(drive: Drive) -> None:
    backend = StubBackend(("--start-s", "2.5", "--says", "noise", "--says", "now: loading weights, 1 of 4 files"))
    engine = drive(backend=backend, ties=Ties(times=Remembered(start=48.0)))
    ready = await engine.until(State.READY)
    starting = [status for status in engine.history if status.state is State.STARTING]
    assert starting[0].detail == "stub is starting; the last start took 48 s"
    assert starting[0].retry_after_s == 48.0
    assert starting[1].detail == "stub is starting: loading weights, 1 of 4 files; the last start took 48 s"
    assert 40.0 < starting[1].retry_after_s < 48.0
    assert ready.detail == ""


async def test_a_failure_that_its_output_explains(drive: Drive) -> None:
    final = drive("--crash", "hopeless: the model needs 80 GiB; take a smaller one")
    assert (await final.until(State.FAILED)).detail == "the model needs 80 GiB; take a smaller one"
    assert final.states == ["starting", "failed"]
    passing = drive("--crash", "for now: another process holds 60 GiB")
    assert (await passing.until(State.BACKOFF)).detail.startswith("another process holds 60 GiB; next try in")
    assert (await passing.until(State.FAILED)).detail == (
        "3 starts in a row failed; the last: another process holds 60 GiB"
    )


async def test_a_request_does_not_start_what_has_failed(drive: Drive) -> None:
    engine = drive("--refuse", "no")
    await engine.until(State.FAILED)
    engine.life.want()
    await asyncio.sleep(0.1)
    assert engine.states == ["starting", "failed"]
