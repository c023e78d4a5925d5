"""The worker pool with real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from backends.process import Launcher
from gateway.control.sockets import listen
from gateway.control.workers import WorkerPool, WorkerSetup
from gateway.counters import Counters
from gateway.exits import CommandError
from gateway.snapshot import EngineTrouble, Snapshot


@dataclass
class Stage:
    pool: WorkerPool
    counters: Counters
    counters_fd: int
    port: int
    setup: WorkerSetup
    deaths: list[str]

    async def status(self, path: str) -> int:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    launcher = await Launcher.start()
    fd, counters = Counters.create(1, 2)
    (tmp_path / "metrics").mkdir()
    deaths: list[str] = []
    with listen("127.0.0.1", 0, "endpoint", "--port") as sock, closing(counters):
        setup = WorkerSetup(sock.fileno(), fd, 2, 1, tmp_path / "metrics", tmp_path / "logs", "")
        pool = WorkerPool(launcher, setup, counters, lambda _: None, deaths.append)
        await pool.start()
        yield Stage(pool, counters, fd, sock.getsockname()[1], setup, deaths)
        await pool.kill()
    os.close(fd)
    await launcher.close()


@pytest.mark.slow
async def test_pushes_are_acknowledged_and_a_dead_worker_is_replaced_with_its_column_cleared(stage: Stage) -> None:
    assert await stage.status("/health/live") == 200
    assert await stage.pool.push(Snapshot(version=1)) == ()
    victim = stage.pool.pids[1]
    other = Counters.attach(stage.counters_fd, 1, 2, column=0)
    own = Counters.attach(stage.counters_fd, 1, 2, column=1)
    with closing(own), closing(other):
        other.add(0, 1, 10)
        own.add(0, 5, 50)
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(10):
            while stage.counters.running(0) != 1:
                await asyncio.sleep(0.02)
        assert stage.counters.outstanding_tokens(0) == 10
    async with asyncio.timeout(15):
        while stage.pool.pids[1] == victim:
            await asyncio.sleep(0.02)
    assert stage.deaths == ["worker 1 ended (killed by SIGKILL), replaced"]
    assert await stage.pool.push(Snapshot(version=2)) == ()


@pytest.mark.slow
async def test_a_worker_that_does_not_acknowledge_is_replaced_and_the_call_says_so(stage: Stage) -> None:
    stuck = stage.pool.pids[0]
    os.kill(stuck, signal.SIGSTOP)
    assert await stage.pool.push(Snapshot(version=1)) == (0,)
    async with asyncio.timeout(15):
        while stage.pool.pids[0] == stuck:
            await asyncio.sleep(0.02)


async def test_workers_that_cannot_start_are_one_error_with_their_last_lines(tmp_path: Path) -> None:
    launcher = await Launcher.start()
    fd, counters = Counters.create(1, 1)
    with socket.socket() as sock, closing(counters):
        # A descriptor that is no listening socket.
        setup = WorkerSetup(
            sock.fileno(), fd, 1, 1, tmp_path / "none" / "metrics", tmp_path / "logs", "/no/such/folder/access.log"
        )
        pool = WorkerPool(launcher, setup, counters, _ignore, lambda _: None)
        with pytest.raises(CommandError, match="a data worker does not start; its last lines:"):
            await pool.start()
        await pool.kill()
    os.close(fd)
    await launcher.close()


def _ignore(trouble: EngineTrouble) -> None:
    pass
