"""The worker pool with real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest

from backends.process import Launcher
from gateway.control import workers
from gateway.control.sockets import listen
from gateway.control.workers import WorkerPool, WorkerSetup, WorkerStatus
from gateway.counters import Counters
from gateway.exits import CommandError
from gateway.snapshot import Adapter, Alias, Engine, EngineTrouble, Model, Share, Snapshot, Tally

GONE = Engine("m-0", 0, "llamacpp", "ready", "127.0.0.1", 1)
"""Nothing listens there: a request to it is trouble."""
FIRST = Snapshot(0, (Model("m", "m", (GONE,), capabilities=("completions",)),))


@dataclass
class Stage:
    """Two workers, and what control is told of them."""

    counters: Counters
    counters_fd: int
    port: int
    setup: WorkerSetup
    deaths: list[str] = field(default_factory=list)
    troubles: list[EngineTrouble] = field(default_factory=list)
    on_trouble: Callable[[EngineTrouble], None] = lambda _: None

    def __post_init__(self) -> None:
        self.pool: WorkerPool
        self.wants: list[tuple[str, int]] = []
        self.engine_wants: list[tuple[str, int]] = []
        self.uses: list[str] = []
        self.tallies: list[Tally] = []

    def trouble(self, trouble: EngineTrouble) -> None:
        self.on_trouble(trouble)

    def want(self, version: str, worker: int) -> None:
        self.wants.append((version, worker))

    def want_engine(self, model: str, worker: int) -> None:
        self.engine_wants.append((model, worker))

    def used(self, versions: Iterable[str]) -> None:
        self.uses.extend(versions)

    def tallied(self, rows: Iterable[Tally]) -> None:
        self.tallies.extend(rows)

    async def start(self, launcher: Launcher) -> None:
        self.pool = WorkerPool(launcher, self.setup, self.counters, FIRST, self, self.deaths.append)
        await self.pool.start()

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self.pool.statuses]

    async def ask(self, method: str = "GET", path: str = "/health/live") -> httpx.Response:
        """On a connection of its own."""
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.request(method, f"http://127.0.0.1:{self.port}{path}", json={"model": "m"})

    async def replaced(self, column: int, old_pid: int) -> WorkerStatus:
        """The successor, once it serves."""
        async with asyncio.timeout(20):
            while True:
                worker = self.pool.statuses[column]
                if worker.pid not in (0, old_pid) and worker.state == "ready":
                    return worker
                await asyncio.sleep(0.02)


@pytest.fixture
def fast_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PING_INTERVAL_S", 0.3)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    launcher = await Launcher.start()
    fd, counters = Counters.create(1, 2)
    (tmp_path / "metrics").mkdir()
    with listen("127.0.0.1", 0, "endpoint", "--port") as sock, closing(counters):
        setup = WorkerSetup(sock.fileno(), fd, 2, 1, tmp_path / "metrics", tmp_path / "logs", "")
        stage = Stage(counters, fd, sock.getsockname()[1], setup)
        await stage.start(launcher)
        yield stage
        await stage.pool.kill()
    os.close(fd)
    await launcher.close()


@pytest.mark.slow
async def test_pushes_are_acknowledged_and_a_dead_worker_is_replaced_with_its_column_cleared(stage: Stage) -> None:
    assert (await stage.ask()).status_code == 200
    assert await stage.pool.push(Snapshot(version=1)) == ()
    victim = stage.pids[1]
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
    successor = await stage.replaced(1, victim)
    assert (successor.num_restarts, successor.detail) == (1, "killed by SIGKILL")
    assert stage.deaths == ["worker 1 ended (killed by SIGKILL), replaced"]
    assert await stage.pool.push(Snapshot(version=2)) == ()


@pytest.mark.slow
async def test_a_worker_that_does_not_acknowledge_is_replaced_and_the_call_says_so(stage: Stage) -> None:
    stuck = stage.pids[0]
    os.kill(stuck, signal.SIGSTOP)
    assert await stage.pool.push(Snapshot(version=1)) == (0,)
    await stage.replaced(0, stuck)


@pytest.mark.slow
async def test_a_stuck_worker_is_replaced_also_when_there_is_no_news(fast_pings: None, stage: Stage) -> None:
    stuck = stage.pids[1]
    os.kill(stuck, signal.SIGSTOP)
    await stage.replaced(1, stuck)
    log = (stage.setup.logs_dir / "worker-1.log").read_text()
    assert "no sign of life for" in log
    assert len(stage.deaths) == 1


@pytest.mark.slow
async def test_what_a_dead_worker_counted_stays_counted_and_a_client_that_waits_is_answered(stage: Stage) -> None:
    for _ in range(20):
        assert (await stage.ask("POST", "/v1/completions")).status_code == 502
    await asyncio.sleep(0.7)  # both have booked
    files = {path.name for path in stage.setup.metrics_dir.iterdir()}
    for _ in range(2):
        pids = stage.pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        page = (await stage.ask(path="/metrics")).text  # nobody is there to answer when it is sent
        assert 'forgegate_requests_total{engine="m-0",model="m",status="502"} 20.0' in page
        assert "forgegate_errors_total" in page
        for column, pid in enumerate(pids):
            await stage.replaced(column, pid)
    assert {path.name for path in stage.setup.metrics_dir.iterdir()} == files
    assert len(stage.deaths) >= 2


@pytest.mark.slow
async def test_a_bug_in_the_supervision_of_a_worker_ends_in_a_new_worker(stage: Stage) -> None:
    def fail(trouble: EngineTrouble) -> None:
        raise ZeroDivisionError

    stage.on_trouble = fail
    old = stage.pids
    with suppress(httpx.RemoteProtocolError):  # the worker may be ended before it has answered
        assert (await stage.ask("POST", "/v1/completions")).status_code == 502
    async with asyncio.timeout(10):
        while not stage.deaths:
            await asyncio.sleep(0.02)
    assert "internal error" in stage.deaths[0]
    column = int(stage.deaths[0].split()[1])
    await stage.replaced(column, old[column])
    assert "ZeroDivisionError" in (stage.setup.logs_dir / f"worker-{column}.log").read_text()


@pytest.mark.slow
async def test_a_drain_does_not_wait_for_a_worker_that_is_just_being_replaced(stage: Stage) -> None:
    os.kill(stage.pids[0], signal.SIGKILL)
    while not stage.pool.statuses[0].num_restarts:
        await asyncio.sleep(0)
    assert not stage.pids[0]  # its successor is being started
    async with asyncio.timeout(10):
        await stage.pool.drain(30.0)


async def test_workers_that_cannot_start_are_one_error_with_their_last_lines(tmp_path: Path) -> None:
    launcher = await Launcher.start()
    fd, counters = Counters.create(1, 1)
    with socket.socket() as sock, closing(counters):
        # A descriptor that is no listening socket.
        setup = WorkerSetup(
            sock.fileno(), fd, 1, 1, tmp_path / "none" / "metrics", tmp_path / "logs", "/no/such/folder/access.log"
        )
        pool = WorkerPool(launcher, setup, counters, FIRST, _Deaf(), lambda _: None)
        with pytest.raises(CommandError, match="a data worker does not start; its last lines:"):
            await pool.start()
        await pool.kill()
    os.close(fd)
    await launcher.close()


class _Deaf:
    """Listens to nothing."""

    def trouble(self, trouble: EngineTrouble) -> None:
        pass

    def want(self, version: str, worker: int) -> None:
        pass

    def want_engine(self, model: str, worker: int) -> None:
        pass

    def used(self, versions: Iterable[str]) -> None:
        pass

    def tallied(self, rows: Iterable[Tally]) -> None:
        pass


@pytest.mark.slow
async def test_a_request_for_an_adapter_that_no_engine_holds_is_told_with_its_worker(stage: Stage) -> None:
    model = Model("m", "m", (msgspec.structs.replace(GONE, port=1),), capabilities=("completions",))
    cold = Adapter("s@1", "m")
    await stage.pool.push(Snapshot(1, (model,), (cold,), (Alias("s", "m", (Share("s@1"),)),)))
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{stage.port}/v1/completions"
        asking = asyncio.create_task(client.post(url, json={"model": "s", "prompt": "x"}))
        async with asyncio.timeout(10):
            while not stage.wants:
                await asyncio.sleep(0.01)
        ((version, worker),) = stage.wants
        assert (version, worker in (0, 1), stage.uses) == ("s@1", True, ["s@1"])
        refused = msgspec.structs.replace(cold, refusal="it fits nowhere", retry_after_s=7)
        await stage.pool.push(Snapshot(2, (model,), (refused,), (Alias("s", "m", (Share("s@1"),)),)))
        answer = await asking
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert "it fits nowhere" in answer.text


@pytest.mark.slow
async def test_a_request_that_waits_for_an_engine_is_told_with_its_worker(stage: Stage) -> None:
    asleep = msgspec.structs.replace(GONE, state="asleep", is_on_demand=True)
    model = Model("m", "m", (asleep,), capabilities=("completions",))
    await stage.pool.push(Snapshot(1, (model,)))
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{stage.port}/v1/completions"
        asking = [asyncio.create_task(client.post(url, json={"model": "m", "prompt": "x"})) for _ in range(4)]
        async with asyncio.timeout(10):
            while not stage.engine_wants:
                await asyncio.sleep(0.01)
        failed = msgspec.structs.replace(asleep, state="failed", detail="out of memory", retry_after_s=7)
        await stage.pool.push(Snapshot(2, (msgspec.structs.replace(model, engines=(failed,)),)))
        answers = await asyncio.gather(*asking)
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "7")}
    assert all("out of memory" in answer.text for answer in answers)
    # One for each worker that a request came to, not one for each request.
    assert {model for model, _ in stage.engine_wants} == {"m"}
    assert 1 <= len(stage.engine_wants) == len(set(stage.engine_wants)) <= 2
