"""Engines' lives with stub engines as real children: driven by commands, everything that they announce kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from backends.base import (
    LOOPBACK,
    Address,
    BackendDefaults,
    Call,
    Facts,
    Fetch,
    Identity,
    LaunchSpec,
    Load,
    Reply,
    SleepCalls,
    StartFailure,
    Tell,
    untold,
)
from backends.errors import EngineRefused, ModelUnusable, ProbeFailed
from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.probe import Prober
from backends.process import Launcher
from backends.restart import RestartPolicy
from backends.status import State, Status, Timing
from tests.processes import STUB

FAST = Timing(
    start_timeout_s=10.0,
    start_poll_s=0.02,
    probe_interval_s=0.05,
    probe_timeout_s=0.2,
    max_missed_probes=3,
    stop_grace_s=3.0,
)
IMPATIENT = RestartPolicy(
    first_delay_s=0.02, max_delay_s=0.05, max_early_deaths=3, stable_s=0.2, first_pause_s=0.05, max_pause_s=0.1
)


@dataclass
class StubBackend(BackendDefaults):
    """Runs the stub engine; `flags` are its faults."""

    flags: tuple[str, ...] = ()
    timing: Timing = FAST
    policy: RestartPolicy = IMPATIENT
    problem: str = ""
    tells: tuple[str, ...] = ()
    kind: str = "stub"
    title: str = "stub"
    ready_path: str = "/health"
    capabilities: tuple[str, ...] = ("chat",)
    ports: list[int] = field(default_factory=list)
    sleeps: SleepCalls | None = None

    def check(self, tell: Tell = untold) -> str:
        return "stub"

    def plan(self, taken: Mapping[str, int]) -> None:
        return None

    async def prepare(self, launcher: Launcher, tell: Tell) -> Identity:
        for text in self.tells:
            tell(text)
        if self.problem:
            raise ModelUnusable(self.problem)
        return Identity("sha256:aa", is_source=True)

    def launch(self, port: int) -> LaunchSpec | None:
        self.ports.append(port)
        return LaunchSpec((sys.executable, "-S", str(STUB), "--port", str(port), *self.flags))

    def address(self, port: int) -> Address:
        return Address(LOOPBACK, port)

    def secret_for(self, launch_secret: str) -> str:
        return launch_secret

    def refusal(self, reply: Reply) -> str:
        return ""

    async def inspect(self, fetch: Fetch) -> Facts:
        reply = await fetch("/v1/models")
        assert reply.status != 401, "the launch's secret is accepted"
        if reply.status != 200:  # it fell asleep meanwhile
            raise ProbeFailed(f"/v1/models answered {reply.status}")
        return Facts("stub", 2048, "stub")

    async def load(self, fetch: Fetch) -> Load | None:
        return None

    def progress(self, line: str) -> str:
        return line.removeprefix("now: ") if line.startswith("now: ") else ""

    def explain(self, lines: Sequence[str]) -> StartFailure | None:
        for line in lines:
            for head, is_final in (("hopeless: ", True), ("for now: ", False)):
                if line.startswith(head):
                    return StartFailure(line.removeprefix(head), is_final)
        return None


class StubSleep:
    """As the stub engine does it."""

    levels = (1, 2)

    async def sleep(self, call: Call, level: int) -> None:
        await self._ask(call, f"/sleep?level={level}")

    async def wake(self, call: Call, level: int) -> None:
        await self._ask(call, f"/wake_up?was={level}")

    async def _ask(self, call: Call, path: str) -> None:
        reply = await call(path, b"", 5.0)
        if reply.status != 200:
            raise EngineRefused(reply.text)


class Turnstile:
    """A gate that a test opens."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[str] = asyncio.Queue()
        self.tell: Tell = lambda text: None
        self.log: list[str] = []

    async def enter(self, tell: Tell) -> str:
        self.log.append("enter")
        self.tell = tell
        try:
            return await self.answers.get()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    def leave(self) -> None:
        if self.log[-1:] != ["leave"]:
            self.log.append("leave")


class Remembered:
    def __init__(self, **last: float) -> None:
        self.seconds = dict(last)
        self.noted: list[str] = []

    def last(self, what: str) -> float | None:
        return self.seconds.get(what)

    def note(self, what: str, seconds: float) -> None:
        self.noted.append(what)
        self.seconds[what] = seconds


class Driven:
    """An engine's life with everything it announced."""

    def __init__(self, backend: StubBackend, launcher: Launcher, prober: Prober, **options: object) -> None:
        self.history: list[Status] = []
        self.news = asyncio.Event()
        self.life = EngineLife(backend, launcher, prober, LogRing(), self._announce, **options)  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.life.run())

    async def _announce(self, status: Status) -> None:
        self.history.append(status)
        self.news.set()

    async def until(self, state: State, after: int = 0) -> Status:
        """The first announcement of `state` that is not among the first `after` ones."""
        async with asyncio.timeout(10):
            while True:
                for status in self.history[after:]:
                    if status.state is state:
                        return status
                self.news.clear()
                await self.news.wait()

    @property
    def states(self) -> list[str]:
        return [str(status.state) for status in self.history]


Drive = Callable[..., Driven]


@pytest.fixture
async def drive() -> AsyncIterator[Drive]:
    launcher, prober = await Launcher.start(), Prober()
    driven: list[Driven] = []

    def start(*flags: str, **options: object) -> Driven:
        backend = options.pop("backend", None) or StubBackend(flags)
        driven.append(Driven(backend, launcher, prober, **options))  # type: ignore[arg-type]
        driven[-1].life.start()
        return driven[-1]

    yield start
    for one in driven:
        one.life.close(0.0)
    async with asyncio.timeout(10):
        await asyncio.gather(*(one.task for one in driven))
    await prober.close()
    await launcher.close()
