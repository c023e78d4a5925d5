"""The life of an engine, with stub engines as real children."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from backends.base import (
    Facts,
)
from backends.restart import RestartPolicy
from backends.status import State, Timing
from backends.ties import Ties
from tests.backends.life_rig import (
    IMPATIENT,
    Drive,
    StubBackend,
)
from tests.processes import is_alive


async def test_start_ready_stop_start(drive: Drive) -> None:
    engine = drive("--start-s", "0.1")
    ready = await engine.until(State.READY)
    assert ready.facts == Facts("stub", 2048, "stub")
    assert ready.pid is not None
    assert ready.detail == ""
    engine.life.stop()
    stopped = await engine.until(State.STOPPED)
    assert stopped.pid is None
    engine.life.start()
    again = await engine.until(State.READY, after=4)
    assert engine.states == ["starting", "ready", "draining", "stopped", "starting", "ready"]
    assert again.secret != ready.secret


async def test_restart_drains_then_starts_anew(drive: Drive) -> None:
    engine = drive()
    first = await engine.until(State.READY)
    engine.life.restart()
    second = await engine.until(State.READY, after=2)
    assert engine.states == ["starting", "ready", "draining", "starting", "ready"]
    assert second.num_restarts == 1
    assert not is_alive(first.pid or 0)
    assert "finished all requests" in engine.life.log.tail(99)


async def test_a_killed_engine_comes_back_however_often(drive: Drive) -> None:
    engine = drive()
    for _ in range(IMPATIENT.max_early_deaths or 0):
        ready = await engine.until(State.READY, after=len(engine.history))
        await asyncio.sleep(0.25)  # stable
        os.kill(ready.pid or 0, signal.SIGKILL)
        backoff = await engine.until(State.BACKOFF, after=len(engine.history) - 1)
        assert "killed by SIGKILL" in backoff.detail
    await engine.until(State.READY, after=len(engine.history))
    assert "failed" not in engine.states


async def test_a_crash_loop_ends_failed_with_the_reason_and_restart_tries_again(drive: Drive) -> None:
    engine = drive("--crash", "terrible")
    failed = await engine.until(State.FAILED)
    assert failed.detail == "3 starts in a row failed; the last: the engine ended: exit code 1"
    assert engine.states == ["starting", "backoff"] * 2 + ["starting", "failed"]
    assert engine.life.log.tail(4) == (
        "something", "terrible", "(control) the engine ended: exit code 1", f"(control) given up: {failed.detail}",
    )  # fmt: skip
    await engine.life.settled()
    engine.life.restart()
    await engine.until(State.STARTING, after=len(engine.history))


async def test_an_engine_that_says_why_it_died(drive: Drive) -> None:
    engine = drive("--crash", "error: out of memory")
    assert "the engine ended: exit code 1 (out of memory)" in (await engine.until(State.BACKOFF)).detail


async def test_a_refused_configuration_fails_at_once_with_its_error_line(drive: Drive) -> None:
    engine = drive("--refuse", "model file is cut off")
    assert (await engine.until(State.FAILED)).detail == "model file is cut off"
    assert engine.states == ["starting", "failed"]


async def test_a_port_that_was_taken_meanwhile_is_replaced(drive: Drive, tmp_path: Path) -> None:
    backend = StubBackend(("--refuse-once", str(tmp_path / "tried")))
    engine = drive(backend=backend)
    await engine.until(State.READY)
    assert engine.states == ["starting", "starting", "ready"]
    assert len(set(backend.ports)) == 2


async def test_a_hung_engine_is_killed_and_started_again(drive: Drive, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    engine = drive("--hang", str(hang))
    ready = await engine.until(State.READY)
    hang.touch()
    backoff = await engine.until(State.BACKOFF)
    assert "answered none of 3 health probes: no answer within 0.2 s" in backoff.detail
    assert not is_alive(ready.pid or 0)
    hang.unlink()
    await engine.until(State.READY, after=engine.history.index(backoff))


async def test_slow_answers_now_and_then_are_no_reason_to_kill(drive: Drive, tmp_path: Path) -> None:
    """Only missed probes in a row count."""
    hang = tmp_path / "hang"
    engine = drive("--hang", str(hang))
    await engine.until(State.READY)
    for _ in range(3):
        hang.touch()
        await asyncio.sleep(0.3)
        hang.unlink()
        await asyncio.sleep(0.3)
    assert engine.states == ["starting", "ready"]


async def test_trouble_is_looked_at_at_once(drive: Drive, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    lazy = Timing(start_poll_s=0.02, probe_interval_s=60.0, probe_timeout_s=0.1, max_missed_probes=1)
    engine = drive("--hang", str(hang), timing=lazy)
    await engine.until(State.READY)
    hang.touch()
    engine.life.probe_now()
    await engine.until(State.BACKOFF)


async def test_a_start_that_takes_too_long(drive: Drive) -> None:
    engine = drive("--start-s", "60", timing=Timing(start_timeout_s=0.5, start_poll_s=0.05))
    assert "not ready within 0.5 s" in (await engine.until(State.BACKOFF)).detail


async def test_a_deaf_engine_is_killed_after_the_grace(drive: Drive) -> None:
    engine = drive("--deaf")
    ready = await engine.until(State.READY)
    engine.life.stop(grace_s=0.2)
    await engine.until(State.STOPPED)
    assert not is_alive(ready.pid or 0)


async def test_a_second_stop_hurries_the_first(drive: Drive) -> None:
    engine = drive("--deaf", timing=Timing(start_poll_s=0.02, stop_grace_s=60.0))
    await engine.until(State.READY)
    engine.life.stop()
    await engine.until(State.DRAINING)
    engine.life.stop(grace_s=0.0)
    await engine.until(State.STOPPED)


async def test_a_stop_while_starting_and_while_waiting(drive: Drive) -> None:
    engine = drive("--start-s", "60")
    await engine.until(State.STARTING)
    engine.life.stop()
    await engine.until(State.STOPPED)
    waiting = drive("--crash", "x", policy=RestartPolicy(first_delay_s=60.0))
    await waiting.until(State.BACKOFF)
    waiting.life.stop()
    await waiting.until(State.STOPPED)


async def test_a_start_during_the_drain_is_not_lost(drive: Drive) -> None:
    engine = drive()
    await engine.until(State.READY)
    engine.life.stop()
    engine.life.start()
    await engine.until(State.READY, after=2)


async def test_grandchildren_end_with_the_engine(drive: Drive, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    engine = drive("--grandchild", str(pid_file), "--escape")
    ready = await engine.until(State.READY)
    grandchild = int(pid_file.read_text())
    assert is_alive(grandchild)
    os.kill(ready.pid or 0, signal.SIGKILL)
    await engine.until(State.BACKOFF)
    await asyncio.sleep(0.1)
    assert not is_alive(grandchild)


async def test_a_model_that_cannot_be_prepared_fails_with_its_reason(drive: Drive) -> None:
    engine = drive(backend=StubBackend(problem="x.gguf: not a GGUF file"))
    assert (await engine.until(State.FAILED)).detail == "x.gguf: not a GGUF file"


async def test_what_is_prepared_is_told_while_it_starts(drive: Drive) -> None:
    engine = drive(backend=StubBackend(tells=("converting: 10 % written", "converting: 100 % written")))
    await engine.until(State.READY)
    details = [status.detail for status in engine.history if status.state is State.STARTING]
    assert details[:3] == ["stub is starting", "converting: 10 % written", "converting: 100 % written"]
    assert "(control) converting: 10 % written" in engine.life.log.tail(50)


async def test_weights_that_may_not_serve_here_are_refused(drive: Drive) -> None:
    engine = drive(ties=Ties(refuse=lambda identity: f"{identity.digest} is not the model's"))
    assert (await engine.until(State.FAILED)).detail == "sha256:aa is not the model's"
    assert engine.history[-1].pid is None
