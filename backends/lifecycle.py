"""The life of one engine: a state machine in one task that owns all of its state; everybody else sends commands.

                    start                200                    stop / restart
        stopped ----------> starting ----------> ready ----------------------> draining -> stopped | starting
           ^                 |   ^                 |
           |        death    |   | delay over      | death, or too many missed probes
           |                 v   |                 v
           +------ stop --- backoff <--------------+
                             | too many early deaths, or the engine refuses its configuration (exit code 3)
                             v
                           failed ---- restart --> starting

An engine without a child (remote) lives the same life: it never dies, it only stops answering.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from backends.base import LOOPBACK, Backend, Facts, Identity, LaunchSpec
from backends.errors import BackendError, ProbeFailed
from backends.logring import LogRing
from backends.lookout import Lookout
from backends.probe import Prober
from backends.process import REFUSED, Child, Launcher, exit_words
from backends.restart import RestartPolicy
from backends.status import (
    Announce,
    Broken,
    Event,
    Exited,
    Prepared,
    Preparing,
    Probed,
    ProbeNow,
    Refused,
    Restart,
    Start,
    State,
    Status,
    Stop,
    Timing,
)  # fmt: skip

_PORT_TAKEN = re.compile(r"address already in use|port \S+ is (already )?(taken|in use)|\bEADDRINUSE\b", re.IGNORECASE)
MAX_PORT_RETRIES = 5
ERROR_LINES = 50
_LAUNCH_LINE = "(control) start"


_Phase = Callable[[], Awaitable["_Phase | None"]]


def free_port() -> int:
    """A TCP port of the loopback interface that is free now; by the time it is used another process may have it."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class EngineLife:
    """One engine, supervised. `run` is the task; the other public methods send it commands.

    `refuse` says why these weights may not serve here, or nothing.
    """

    def __init__(
        self,
        backend: Backend,
        launcher: Launcher,
        prober: Prober,
        log: LogRing,
        announce: Announce,
        refuse: Callable[[Identity], str] = lambda _: "",
        timing: Timing | None = None,
        policy: RestartPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        pick_port: Callable[[], int] = free_port,
    ) -> None:
        self.status = Status()
        self.log = log
        self.backend = backend
        self._launcher = launcher
        self._announce = announce
        self._refuse = refuse
        self._timing = timing or backend.timing
        self._policy = policy or backend.policy
        self._clock = clock
        self._chance = chance
        self._pick_port = pick_port
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._lookout = Lookout(backend, launcher, prober, self._inbox)
        self._settled = asyncio.Event()
        self._launch = 0
        self._child: Child | None = None
        self._early_deaths: tuple[float, ...] = ()
        self._num_port_retries = 0
        self._next_after_drain: _Phase | None = self._stopped
        self._grace_s = self._timing.stop_grace_s

    # Commands ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start unless it runs."""
        self._inbox.put_nowait(Start())

    def restart(self) -> None:
        """Drain and start anew; a failed or waiting engine starts at once."""
        self._inbox.put_nowait(Restart())

    def stop(self, grace_s: float | None = None) -> None:
        """Drain and stay stopped; a second call with a smaller grace hurries the first."""
        self._inbox.put_nowait(Stop(self._timing.stop_grace_s if grace_s is None else grace_s, is_last=False))

    def close(self, grace_s: float | None = None) -> None:
        """Stop and end `run`."""
        self._inbox.put_nowait(Stop(self._timing.stop_grace_s if grace_s is None else grace_s, is_last=True))

    def probe_now(self) -> None:
        """Somebody had trouble with this engine: look now rather than at the next tick."""
        self._inbox.put_nowait(ProbeNow())

    async def settled(self) -> None:
        """Until the first start came to an end, good or bad."""
        await self._settled.wait()

    # The task ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        phase: _Phase | None = self._rest
        try:
            while phase is not None:
                phase = await phase()
        finally:
            if self._child is not None:
                self._child.kill()
            self._lookout.close()
            self._settled.set()

    async def _stopped(self) -> _Phase | None:
        self._change(pid=None)
        await self._enter(State.STOPPED, "stopped by command")
        return await self._rest()

    async def _failed(self) -> _Phase | None:
        self._settled.set()
        return await self._rest()

    async def _rest(self) -> _Phase | None:
        """Nothing runs: only commands matter."""
        while True:
            match await self._next(None):
                case Start() | Restart():
                    self._early_deaths, self._num_port_retries = (), 0
                    return self._starting
                case Stop(is_last=True):
                    return None
                case Stop() if self.status.state is State.FAILED:
                    return self._stopped
                case _:
                    continue

    async def _starting(self) -> _Phase | None:
        self._begin_launch()
        await self._enter(State.STARTING, f"{self.backend.title} is starting")
        self._lookout.prepare(self._launch)
        deadline: float | None = None  # what is prepared at first use (a conversion) does not count
        last = "it was not asked"
        while True:
            match await self._next(self._timing.start_poll_s):
                case Preparing(text=text):
                    self.log.add(f"(control) {text}")
                    await self._enter(State.STARTING, text)
                case Prepared(outcome=BackendError() as error):
                    return await self._give_up(str(error))
                case Prepared(outcome=Identity() as identity):
                    self._change(identity=identity)
                    problem = self._refuse(identity) or await self._spawn()
                    if problem:
                        return await self._give_up(problem)
                    deadline = self._clock() + self._timing.start_timeout_s
                case Exited(code=code):
                    return await self._after_exit(code)
                case Probed(outcome=Facts() as facts):
                    self._change(facts=facts)
                    return self._ready
                case Probed(outcome=Refused(reason=reason)):
                    return await self._give_up(reason)
                case Probed(outcome=ProbeFailed() as error):
                    last = str(error)
                case Restart():
                    return self._drain_to(self._starting, self._timing.stop_grace_s)
                case Stop() as stop:
                    return self._drain_for(stop)
                case None if deadline is not None and self._clock() >= deadline:
                    return await self._after_death(f"not ready within {self._timing.start_timeout_s:g} s: {last}")
                case None if deadline is not None:
                    self._probe()
                case _:
                    continue

    async def _ready(self) -> _Phase | None:
        self._num_port_retries = 0
        self._change(ready_since=self._clock())
        await self._enter(State.READY)
        self._settled.set()
        num_missed, interval_s = 0, self._timing.probe_interval_s
        while True:
            match await self._next(interval_s):
                case Exited(code=code):
                    return await self._after_exit(code)
                case Probed(outcome=ProbeFailed() as error):
                    num_missed += 1
                    if num_missed >= self._timing.max_missed_probes:
                        return await self._after_death(f"answered none of {num_missed} health probes: {error}")
                case Probed(outcome=Refused(reason=reason)):
                    return await self._give_up(reason)
                case Probed():
                    num_missed = 0
                case Restart():
                    return self._drain_to(self._starting, self._timing.stop_grace_s)
                case Stop() as stop:
                    return self._drain_for(stop)
                case ProbeNow() | None:
                    self._probe()
                case _:
                    continue

    async def _draining(self) -> _Phase | None:
        await self._enter(State.DRAINING, f"{self.backend.title} is being stopped")
        if self._child is None:
            return self._next_after_drain
        self._child.terminate()
        deadline = self._clock() + self._grace_s
        while True:
            match await self._next(max(0.0, deadline - self._clock())):
                case Exited():
                    self._child = None
                    return self._next_after_drain
                case Stop() as stop:
                    self._drain_for(stop)
                    deadline = min(deadline, self._clock() + stop.grace_s)
                case Start() | Restart() if self._next_after_drain == self._stopped:
                    self._next_after_drain = self._starting
                case None:
                    self._child.kill()
                    deadline = self._clock() + 1.0
                case _:
                    continue

    async def _backoff(self) -> _Phase | None:
        deadline = self._clock() + self.status.retry_after_s
        while (left_s := deadline - self._clock()) > 0:
            match await self._next(left_s):
                case Start() | Restart():
                    break
                case Stop() as stop:
                    return self._drain_for(stop)
                case _:
                    continue
        return self._starting

    # Effects, each done by the task itself ----------------------------------------------------------------------------

    def _begin_launch(self) -> None:
        self._launch += 1
        self._child = None
        self._lookout.forget_probe()
        secret = self.backend.secret_for(secrets.token_urlsafe(32))
        self._change(
            address=self.backend.address(self._pick_port()), secret=secret, pid=None, ready_since=None, facts=None,
            num_restarts=self._launch - 1,
        )  # fmt: skip

    async def _spawn(self) -> str:
        """Start the child, if this backend has one; why not, else empty."""
        try:
            spec = self.backend.launch(self.status.address.port)
            if spec is None:
                return ""
            self.log.add(f"{_LAUNCH_LINE} {self._launch} on port {self.status.address.port}")
            env = {**spec.env, "FORGEGATE_ENGINE_SECRET": self.status.secret}
            self._child = await self._launcher.spawn(LaunchSpec(spec.argv, env, spec.cwd), self.log)
        except BackendError as exc:
            return str(exc)
        self._change(pid=self._child.pid)
        self._lookout.follow(self._child, self._launch)
        return ""

    async def _after_exit(self, code: int) -> _Phase:
        error = self._error_line()
        if code != REFUSED:
            return await self._after_death(f"the engine ended: {exit_words(code)}{f' ({error})' if error else ''}")
        if _PORT_TAKEN.search(error) and self._num_port_retries < MAX_PORT_RETRIES:
            self._num_port_retries += 1
            return self._starting
        return await self._give_up(error or "the engine refuses its configuration")

    async def _after_death(self, reason: str) -> _Phase:
        await self._end_child()
        self.log.add(f"(control) {reason}")
        now = self._clock()
        ready_for_s = now - self.status.ready_since if self.status.ready_since is not None else 0.0
        verdict = self._policy.after(self._early_deaths, now, ready_for_s, self._chance())
        self._early_deaths = verdict.early
        if verdict.delay_s is None:
            return await self._give_up(f"{len(verdict.early)} starts in a row failed; the last: {reason}")
        self._change(retry_after_s=verdict.delay_s)
        await self._enter(State.BACKOFF, f"{reason}; next try in {verdict.delay_s:.1f} s")
        self._settled.set()
        return self._backoff

    async def _give_up(self, reason: str) -> _Phase:
        await self._end_child()
        self.log.add(f"(control) given up: {reason}")
        await self._enter(State.FAILED, reason)
        return self._failed

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            await child.wait()
        self._change(pid=None)

    def _drain_for(self, stop: Stop) -> _Phase:
        grace_s = min(stop.grace_s, self._timing.stop_grace_s)
        return self._drain_to(self._closed if stop.is_last else self._stopped, grace_s)

    def _drain_to(self, after: _Phase, grace_s: float) -> _Phase:
        self._next_after_drain, self._grace_s = after, grace_s
        return self._draining

    async def _closed(self) -> _Phase | None:
        self._change(pid=None)
        await self._enter(State.STOPPED, "stopped by command")
        return None

    def _error_line(self) -> str:
        """The last `error: ...` line of this launch, without its head; empty where there is none."""
        for line in reversed(self.log.tail(ERROR_LINES)):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
            if line.startswith(_LAUNCH_LINE):
                break
        return ""

    def _change(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]

    async def _enter(self, state: State, detail: str = "") -> None:
        self._change(state=state, detail=detail)
        if state not in (State.READY, State.BACKOFF):
            self._change(retry_after_s=1.0)
        await self._announce(self.status)

    async def _next(self, timeout_s: float | None) -> Event | None:
        """The next event that belongs to the present launch; None after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    event = await self._inbox.get()
                    if isinstance(event, Broken):
                        raise event.error
                    if getattr(event, "launch", self._launch) == self._launch:
                        return event
        except TimeoutError:
            return None

    def _probe(self) -> None:
        self._lookout.probe(self._launch, self.status, self._timing.probe_timeout_s)
