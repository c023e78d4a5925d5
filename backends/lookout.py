"""What an engine's task does not wait for itself: preparing, admission, following the child, probing, sleep. Each reports to the inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from backends.base import Backend, Facts, Identity, Reply, Tell
from backends.errors import BackendError, EngineRefused, ProbeFailed
from backends.inbox import Inbox
from backends.probe import Prober
from backends.process import Child, Launcher
from backends.status import (
    Admitted,
    Broken,
    Exited,
    Prepared,
    Preparing,
    Probed,
    Progressed,
    Refused,
    Status,
    Turned,
)
from backends.ties import Gate


class Lookout:
    """Runs helpers for one engine; every event carries the launch it belongs to. At most one probe is under way."""

    def __init__(self, backend: Backend, launcher: Launcher, prober: Prober, inbox: Inbox) -> None:
        self._backend = backend
        self._launcher = launcher
        self._prober = prober
        self._inbox = inbox
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._admission: asyncio.Task[None] | None = None

    def prepare(self, launch: int) -> None:
        self._run(self._prepare(launch))

    def admit(self, launch: int, gate: Gate) -> None:
        self._admission = self._run(self._admit(launch, gate))

    def forget_admission(self) -> None:
        """Whoever does not start any more does not wait for it."""
        if self._admission is not None:
            self._admission.cancel()

    def sleep(self, launch: int, status: Status, level: int, timeout_s: float) -> None:
        assert self._backend.sleeps is not None
        call = self._prober.call(status.address, status.secret)
        self._run(self._turn(launch, self._backend.sleeps.sleep(call, level), timeout_s))

    def wake(self, launch: int, status: Status, timeout_s: float) -> None:
        assert self._backend.sleeps is not None
        call = self._prober.call(status.address, status.secret)
        self._run(self._turn(launch, self._backend.sleeps.wake(call, status.sleep_level), timeout_s))

    def progressed(self, launch: int, text: str) -> None:
        """The child said so."""
        self._inbox.put(Progressed(launch, text))

    def follow(self, child: Child, launch: int) -> None:
        self._run(self._follow(child, launch))

    def probe(self, launch: int, status: Status, timeout_s: float) -> None:
        """Unless one is under way."""
        if self._probe is None or self._probe.done():
            self._probe = self._run(self._look(launch, status, timeout_s))

    def forget_probe(self) -> None:
        """A new launch does not wait for an answer of the old one."""
        if self._probe is not None:
            self._probe.cancel()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _run(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._inbox.put(Broken(error))

    async def _prepare(self, launch: int) -> None:
        try:
            outcome: Identity | BackendError = await self._backend.prepare(self._launcher, self._teller(launch))
        except BackendError as exc:
            outcome = exc
        self._inbox.put(Prepared(launch, outcome))

    async def _admit(self, launch: int, gate: Gate) -> None:
        self._inbox.put(Admitted(launch, await gate.enter(self._teller(launch))))

    def _teller(self, launch: int) -> Tell:
        return lambda text: self._inbox.put(Preparing(launch, text))

    async def _turn(self, launch: int, work: Awaitable[None], timeout_s: float) -> None:
        error: BackendError | None = None
        try:
            async with asyncio.timeout(timeout_s):
                await work
        except TimeoutError:
            error = EngineRefused(f"it did not come to an end within {timeout_s:g} s")
        except BackendError as exc:
            error = exc
        self._inbox.put(Turned(launch, error))

    async def _follow(self, child: Child, launch: int) -> None:
        self._inbox.put(Exited(launch, await child.wait()))

    async def _look(self, launch: int, status: Status, timeout_s: float) -> None:
        self._inbox.put(Probed(launch, await self._ask(status, timeout_s)))

    async def _ask(self, status: Status, timeout_s: float) -> Facts | Refused | ProbeFailed:
        fetch = self._prober.fetch(status.address, status.secret, timeout_s)
        try:
            reply = await fetch(self._backend.ready_path)
            if reply.status != 200:
                return self._unready(reply)
            return status.facts or await self._backend.inspect(fetch)
        except ProbeFailed as exc:
            return exc

    def _unready(self, reply: Reply) -> Refused | ProbeFailed:
        reason = self._backend.refusal(reply)
        return Refused(reason) if reason else ProbeFailed(f"health check answered {reply.status}")
