"""How a start waits for its admission, and what is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backends.status import Drain, State, Timing
from backends.ties import Ties
from tests.backends.life_rig import (
    IMPATIENT,
    Drive,
    Remembered,
    StubBackend,
    StubSleep,
    Turnstile,
)


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


async def test_a_start_that_is_not_let_in_ends_stopped_and_may_be_wanted_again(drive: Drive) -> None:
    gate = Turnstile()
    engine = drive(ties=Ties(gate=gate))
    gate.answers.put_nowait("no room: demo-1 is busy")
    stopped = await engine.until(State.STOPPED)
    assert (stopped.detail, stopped.num_failed_starts) == ("no room: demo-1 is busy", 1)
    engine.life.want()
    gate.answers.put_nowait("")
    await engine.until(State.READY)


async def test_a_start_that_fails_for_a_known_reason_is_counted_and_tried_again_when_somebody_asks(
    drive: Drive,
) -> None:
    backend = StubBackend(("--says", "for now: the memory is taken", "--crash", "x"))
    engine = drive(backend=backend, policy=replace(IMPATIENT, retries_starts=False))
    stopped = await engine.until(State.STOPPED)
    assert (stopped.detail, stopped.num_failed_starts) == ("the memory is taken; the next request tries again", 1)
    assert len(backend.ports) == 1
    engine.life.want()
    again = await engine.until(State.STOPPED, after=len(engine.history))
    assert (again.num_failed_starts, len(backend.ports)) == (2, 2)


async def test_a_start_that_takes_too_long_is_tried_again_when_somebody_asks(drive: Drive) -> None:
    timing = Timing(start_timeout_s=0.5, start_poll_s=0.05)
    engine = drive("--start-s", "60", timing=timing, policy=replace(IMPATIENT, retries_starts=False))
    stopped = await engine.until(State.STOPPED)
    assert "not ready within 0.5 s" in stopped.detail
    assert stopped.detail.endswith("; the next request tries again")
    assert (stopped.num_failed_starts, stopped.pid) == (1, None)


async def test_a_crash_for_no_known_reason_is_no_failed_start(drive: Drive) -> None:
    engine = drive("--crash", "x", policy=replace(IMPATIENT, retries_starts=False))
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


async def test_waking_passes_the_gate_and_what_is_not_let_in_sleeps_on(drive: Drive) -> None:
    gate = Turnstile()
    engine = drive(backend=StubBackend(sleeps=StubSleep()), ties=Ties(gate=gate))
    gate.answers.put_nowait("")
    await engine.until(State.READY)
    engine.life.drain(Drain("idle", 1, patience_s=0.0))
    await engine.until(State.ASLEEP)
    engine.life.want()
    gate.answers.put_nowait("no room")
    again = await engine.until(State.ASLEEP, after=len(engine.history))
    assert (again.detail, again.num_failed_starts) == ("asleep (level 1): no room", 1)
    engine.life.want()
    gate.answers.put_nowait("")
    await engine.until(State.READY, after=len(engine.history))


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
