"""The data workers: started on one shared socket, told every snapshot, replaced when they die or stop listening."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import multiprocess

from backends.base import LaunchSpec
from backends.errors import SpawnFailed
from backends.logring import LogRing
from backends.process import REFUSED, Child, Launcher, exit_words
from backends.pythons import import_env
from gateway.channel import Channel, ChannelError, control_end
from gateway.counters import Counters
from gateway.exits import CommandError
from gateway.snapshot import Ack, Drain, EngineTrouble, Ready, Snapshot, ToControl, ToWorker

ACK_TIMEOUT_S = 2.0
START_TIMEOUT_S = 30.0
MAX_FIRST_DEATHS = 3
FIRST_DELAY_S, MAX_DELAY_S = 0.1, 5.0
STDOUT = "-"


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What all workers share."""

    listen_fd: int
    counters_fd: int
    num_workers: int
    num_slots: int
    metrics_dir: Path
    logs_dir: Path
    access_log: str

    def spec(self, column: int, channel_fd: int) -> LaunchSpec:
        argv = (
            sys.executable, "-P", "-m", "gateway.data.worker",
            "--listen-fd", str(self.listen_fd), "--channel-fd", str(channel_fd), "--counters-fd", str(self.counters_fd),
            "--column", str(column), "--num-engine-slots", str(self.num_slots), "--num-workers", str(self.num_workers),
        )  # fmt: skip
        env = {"PROMETHEUS_MULTIPROC_DIR": str(self.metrics_dir), "FORGEGATE_ACCESS_LOG": self.access_log}
        return LaunchSpec(argv, {**import_env(), **env})


class WorkerPool:
    """All workers; the only one that talks to them."""

    def __init__(
        self,
        launcher: Launcher,
        setup: WorkerSetup,
        counters: Counters,
        on_trouble: Callable[[EngineTrouble], None],
        on_death: Callable[[str], None],
    ) -> None:
        self._workers = [
            _Worker(column, launcher, setup, counters, on_trouble, on_death) for column in range(setup.num_workers)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Until all of them listen. Raises CommandError with the last lines of one that cannot."""
        self._tasks = [asyncio.create_task(worker.run(), name=f"worker {worker.column}") for worker in self._workers]
        ready = asyncio.create_task(self._all_ready())
        await asyncio.wait({ready, *self._tasks}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        for worker in self._workers:
            if not worker.first_ready.is_set():
                lines = worker.log.tail(15) or ("(it printed nothing)",)
                raise CommandError("\n".join(["a data worker does not start; its last lines:", *lines]))

    async def _all_ready(self) -> None:
        for worker in self._workers:
            await worker.first_ready.wait()

    async def push(self, snapshot: Snapshot) -> tuple[int, ...]:
        """Send it to all and wait until each has acknowledged; returns the columns of those replaced because they did not."""
        acks = await asyncio.gather(*(worker.push(snapshot) for worker in self._workers))
        return tuple(worker.column for worker, is_acked in zip(self._workers, acks, strict=True) if not is_acked)

    async def drain(self, grace_s: float) -> None:
        """No new connections; running requests have `grace_s`. Returns when all workers are gone."""
        for worker in self._workers:
            worker.drain(grace_s)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s + 1.0)
        await self.kill()

    async def kill(self) -> None:
        for worker in self._workers:
            worker.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self._workers)


class _Worker:
    """One column: a process, and the next one when it dies."""

    def __init__(
        self,
        column: int,
        launcher: Launcher,
        setup: WorkerSetup,
        counters: Counters,
        on_trouble: Callable[[EngineTrouble], None],
        on_death: Callable[[str], None],
    ) -> None:
        self.column = column
        self.log = LogRing(setup.logs_dir / f"worker-{column}.log")
        self.first_ready = asyncio.Event()
        self._launcher = launcher
        self._setup = setup
        self._counters = counters
        self._on_trouble = on_trouble
        self._on_death = on_death
        self._child: Child | None = None
        self._channel: Channel[ToWorker, ToControl] | None = None
        self._latest: Snapshot | None = None
        self._acks: dict[int, asyncio.Future[bool]] = {}
        self._is_ready = False
        self._is_ending = False

    @property
    def pid(self) -> int:
        return self._child.pid if self._child is not None else 0

    async def run(self) -> None:
        num_deaths = 0
        while True:
            try:
                code = await self._live()
            except SpawnFailed as exc:
                self.log.add(f"(control) {exc}")
                code = REFUSED
            if self._is_ending:
                break
            num_deaths = 0 if self._is_ready else num_deaths + 1
            self._is_ready = False
            if not self.first_ready.is_set() and num_deaths >= MAX_FIRST_DEATHS:
                break
            self._on_death(f"worker {self.column} ended ({exit_words(code)}), replaced")
            if num_deaths:
                await asyncio.sleep(min(MAX_DELAY_S, FIRST_DELAY_S * 2**num_deaths))
        self.log.close()

    async def push(self, snapshot: Snapshot) -> bool:
        """Whether it acknowledged in time. One that is not up yet gets the newest snapshot first thing."""
        self._latest = snapshot
        if not self._is_ready or self._channel is None or self._is_ending:
            return True
        self._acks[snapshot.version] = asyncio.get_running_loop().create_future()
        self._channel.post(snapshot)
        try:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                return await self._acks[snapshot.version]
        except TimeoutError:
            self.log.add(
                f"(control) no acknowledgement of snapshot {snapshot.version} within {ACK_TIMEOUT_S:g} s: killed"
            )
            self._kill()
            return False
        finally:
            self._acks.pop(snapshot.version, None)

    def drain(self, grace_s: float) -> None:
        self._is_ending = True
        if self._channel is not None and self._is_ready:
            self._channel.post(Drain(grace_s))
        else:
            self._kill()

    def end(self) -> None:
        self._is_ending = True
        self._kill()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def _live(self) -> int:
        """One process from start to death; what it left in shared places is cleared."""
        ours, theirs = socket.socketpair()
        setup = self._setup
        with theirs:
            fds = (setup.listen_fd, theirs.fileno(), setup.counters_fd)
            stdout_fd = sys.stdout.fileno() if setup.access_log == STDOUT else None
            self._child = child = await self._launcher.spawn(setup.spec(self.column, fds[1]), self.log, fds, stdout_fd)
        self._channel = await control_end(ours)
        try:
            await self._listen(self._channel)
            if not self._is_ending:
                child.kill()  # it closed its channel: dead, or as good as
            return await child.wait()
        finally:
            child.kill()
            self._channel.close()
            self._channel = None
            self._forget(child.pid)

    async def _listen(self, channel: Channel[ToWorker, ToControl]) -> None:
        try:
            while (message := await channel.receive()) is not None:
                match message:
                    case Ready():
                        self._welcome(channel)
                    case Ack(version=version):
                        self._acknowledge(version)
                    case EngineTrouble():
                        self._on_trouble(message)
        except ChannelError as exc:
            self.log.add(f"(control) {exc}: killed")
            self._kill()

    def _welcome(self, channel: Channel[ToWorker, ToControl]) -> None:
        if self._latest is not None:
            channel.post(self._latest)
        self._is_ready = True
        self.first_ready.set()

    def _acknowledge(self, version: int) -> None:
        for waiting, future in self._acks.items():
            if waiting <= version and not future.done():
                future.set_result(True)

    def _forget(self, pid: int) -> None:
        self._counters.clear_column(self.column)
        multiprocess.mark_process_dead(pid, str(self._setup.metrics_dir))  # type: ignore[no-untyped-call]
        for future in self._acks.values():
            if not future.done():
                future.set_result(True)  # gone: it cannot decide from an old snapshot any more
