"""The data workers: started on one shared socket, told every snapshot, replaced when they die or stop listening."""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from backends.base import LaunchSpec
from backends.errors import SpawnFailed
from backends.logring import LogRing
from backends.process import REFUSED, Child, Launcher, exit_words
from backends.pythons import import_env
from gateway.channel import Channel, ChannelError, control_end
from gateway.counters import Counters
from gateway.exits import CommandError
from gateway.snapshot import (
    Ack,
    Drain,
    EngineTrouble,
    Ping,
    Ready,
    Snapshot,
    Tallies,
    Tally,
    ToControl,
    ToWorker,
    Uses,
    Want,
    WantEngine,
)

ACK_TIMEOUT_S = 2.0
START_TIMEOUT_S = 30.0
PING_INTERVAL_S = 2.0
MAX_MISSED_PINGS = 3
"""In a row: a worker that leaves so many unanswered is replaced, whether or not there is news for it."""
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
    conversations: str = ""
    """What to keep of them (`gateway.config.Conversations`) as JSON; empty: nothing."""

    def spec(self, column: int, channel_fd: int) -> LaunchSpec:
        argv = (
            sys.executable, "-P", "-m", "gateway.data.worker",
            "--listen-fd", str(self.listen_fd), "--channel-fd", str(channel_fd), "--counters-fd", str(self.counters_fd),
            "--column", str(column), "--num-engine-slots", str(self.num_slots), "--num-workers", str(self.num_workers),
        )  # fmt: skip
        env = {
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics_dir),
            "FORGEGATE_ACCESS_LOG": self.access_log,
            "FORGEGATE_CONVERSATIONS": self.conversations,
        }
        return LaunchSpec(argv, {**import_env(), **env})


class Listener(Protocol):
    """Hears what workers say. Nothing here may block or raise."""

    def trouble(self, trouble: EngineTrouble) -> None: ...
    def want(self, version: str, worker: int) -> None: ...
    def want_engine(self, model: str, worker: int) -> None: ...
    def used(self, versions: Iterable[str]) -> None: ...
    def tallied(self, rows: Iterable[Tally]) -> None: ...


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    """It takes connections."""
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What everybody else may know of a worker."""

    column: int
    """Its place: a worker that dies is replaced by one of the same column."""
    pid: int
    """0 while there is none."""
    state: WorkerState
    num_restarts: int
    detail: str
    """How its predecessor ended."""


class WorkerPool:
    """All workers; the only one that talks to them."""

    def __init__(
        self,
        launcher: Launcher,
        setup: WorkerSetup,
        counters: Counters,
        first: Snapshot,
        listener: Listener,
        on_death: Callable[[str], None],
    ) -> None:
        self._workers = [
            _Worker(column, launcher, setup, counters, first, listener, on_death) for column in range(setup.num_workers)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Until all of them serve. Raises CommandError with the last lines of one that cannot."""
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
    def statuses(self) -> tuple[WorkerStatus, ...]:
        return tuple(worker.status for worker in self._workers)


class _Worker:
    """One column: a process, and the next one when it dies."""

    def __init__(
        self,
        column: int,
        launcher: Launcher,
        setup: WorkerSetup,
        counters: Counters,
        first: Snapshot,
        listener: Listener,
        on_death: Callable[[str], None],
    ) -> None:
        self.column = column
        self.log = LogRing(setup.logs_dir / f"worker-{column}.log")
        self.first_ready = asyncio.Event()
        self._launcher = launcher
        self._setup = setup
        self._counters = counters
        self._listener = listener
        self._on_death = on_death
        self._child: Child | None = None
        self._channel: Channel[ToWorker, ToControl] | None = None
        self._latest = first
        self._acks: dict[int, asyncio.Future[bool]] = {}
        self._num_launches = 0
        self._last_end = ""
        self._has_begun = False
        """The present process can be told things."""
        self._is_ready = False
        """It serves."""
        self._num_unanswered = 0
        """Pings since it last said anything."""
        self._is_ending = False

    @property
    def status(self) -> WorkerStatus:
        state = WorkerState.READY if self._is_ready else WorkerState.STARTING
        pid = self._child.pid if self._child is not None else 0
        return WorkerStatus(
            self.column,
            pid,
            WorkerState.DRAINING if self._is_ending else state,
            max(0, self._num_launches - 1),
            self._last_end,
        )

    async def run(self) -> None:
        """Until told to end, or until the first few processes have died before they served anything."""
        num_deaths = 0
        while not self._is_over(num_deaths):
            reason = await self._live_guarded()
            num_deaths = 0 if self._is_ready else num_deaths + 1
            self._is_ready = False
            if not self._is_over(num_deaths):
                self._last_end = reason
                self._on_death(f"worker {self.column} ended ({reason}), replaced")
                await asyncio.sleep(min(MAX_DELAY_S, FIRST_DELAY_S * 2**num_deaths) if num_deaths else 0)
        self.log.close()

    def _is_over(self, num_deaths: int) -> bool:
        return self._is_ending or (not self.first_ready.is_set() and num_deaths >= MAX_FIRST_DEATHS)

    async def push(self, snapshot: Snapshot) -> bool:
        """Whether it acknowledged in time. One that is not up yet gets the newest snapshot first thing."""
        self._latest = snapshot
        if not self._has_begun or self._channel is None or self._is_ending:
            return True
        acked = self._acks[snapshot.version] = asyncio.get_running_loop().create_future()
        self._channel.post(snapshot)
        try:
            for _ in range(
                2
            ):  # when it is control that was stopped, the first half is over before anything could be read
                await asyncio.wait({acked}, timeout=ACK_TIMEOUT_S / 2)
            if not acked.done():
                self._give_up(f"no acknowledgement of snapshot {snapshot.version} within {ACK_TIMEOUT_S:g} s")
            return acked.done()
        finally:
            self._acks.pop(snapshot.version, None)

    def drain(self, grace_s: float) -> None:
        self._is_ending = True
        if self._channel is not None and self._has_begun:
            self._channel.post(Drain(grace_s))
        else:
            self._kill()

    def end(self) -> None:
        self._is_ending = True
        self._kill()

    def _give_up(self, reason: str) -> None:
        self.log.add(f"(control) {reason}: killed")
        self._kill()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def _live_guarded(self) -> str:
        """How one process ended, in words. A bug in its supervision must not leave its column empty for good."""
        self._num_launches += 1
        try:
            return exit_words(await self._live())
        except SpawnFailed as exc:
            self.log.add(f"(control) {exc}")
            return exit_words(REFUSED)
        except Exception:  # noqa: BLE001 - named boundary: logged, and the worker is replaced
            for line in traceback.format_exc().splitlines():
                self.log.add(f"(control) {line}")
            return "internal error, its traceback is in the log"

    async def _live(self) -> int:
        """One process from start to death; what it left in shared places is cleared."""
        ours, theirs = socket.socketpair()
        setup = self._setup
        with theirs:
            fds = (setup.listen_fd, theirs.fileno(), setup.counters_fd)
            stdout_fd = sys.stdout.fileno() if setup.access_log == STDOUT else None
            try:
                child = await self._launcher.spawn(setup.spec(self.column, fds[1]), self.log, fds, stdout_fd)
            except SpawnFailed:
                ours.close()
                raise
        self._child = child
        self._channel = await control_end(ours)
        if self._is_ending:
            child.kill()  # told to end while it was being started
        pulse = asyncio.create_task(self._keep_pinging(self._channel), name=f"pings to worker {self.column}")
        try:
            await self._listen(self._channel)
            if not self._is_ending:
                child.kill()  # it closed its channel: dead, or as good as
            return await child.wait()
        finally:
            pulse.cancel()
            self._has_begun = False
            self._channel.close()
            self._channel = None
            child.kill()
            await child.wait()
            self._child = None
            self._forget()

    async def _listen(self, channel: Channel[ToWorker, ToControl]) -> None:
        try:
            while (message := await channel.receive()) is not None:
                self._num_unanswered = 0
                match message:
                    case Ready():
                        channel.post(self._latest)
                        self._has_begun = True
                    case Ack(version=version):
                        self._acknowledge(version)
                    case EngineTrouble():
                        self._listener.trouble(message)
                    case Want(adapter=adapter):
                        self._listener.want(adapter, self.column)
                    case WantEngine(model=model):
                        self._listener.want_engine(model, self.column)
                    case Uses(adapters=adapters):
                        self._listener.used(adapters)
                    case Tallies(rows=rows):
                        self._listener.tallied(rows)
        except ChannelError as exc:
            self._give_up(str(exc))

    async def _keep_pinging(self, channel: Channel[ToWorker, ToControl]) -> None:
        """Pings are counted, not seconds: the time in which control itself was stopped counts as one."""
        self._num_unanswered = 0
        while True:
            limit = MAX_MISSED_PINGS if self._has_begun else START_TIMEOUT_S / PING_INTERVAL_S
            if self._num_unanswered >= limit:
                self._give_up(f"no sign of life for {self._num_unanswered * PING_INTERVAL_S:g} s")
                return
            channel.post(Ping())
            self._num_unanswered += 1
            await asyncio.sleep(PING_INTERVAL_S)

    def _acknowledge(self, version: int) -> None:
        self._is_ready = True
        self.first_ready.set()
        for waiting, future in self._acks.items():
            if waiting <= version and not future.done():
                future.set_result(True)

    def _forget(self) -> None:
        self._counters.clear_column(self.column)
        for future in self._acks.values():
            if not future.done():
                future.set_result(True)  # gone: it cannot decide from an old snapshot any more
