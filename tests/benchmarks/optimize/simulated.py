"""An engine of known truth on a made-up clock: what a search must come out with is known exactly."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.optimize.trial import DiedError, Probe, StartError

OBJECTIVE = "ttft_p99<500ms"


@dataclass(frozen=True)
class Truth:
    """Of one setting."""

    streams: float = 16
    """The highest load that holds the SLO."""
    per_stream: float = 1.0
    """Requests a second that one stream makes."""
    start_s: float = 5.0
    start_error: str = ""
    dies_above: float = float("inf")
    loss: float = 0.0
    """Nats a token."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Killed(BaseException):
    """As SIGKILL: nothing in the code under test handles it."""


class SimulatedEngine:
    def __init__(self, world: SimulatedLaunches, truth: Truth) -> None:
        self.start_s = truth.start_s
        self._world = world
        self._truth = truth

    async def probe(self, load: float, effort: int, seed: int) -> Probe:
        self._world.tick(2.0 * effort)
        if load > self._truth.dies_above:
            raise DiedError("exited with code 139 (SIGSEGV)")
        noise = self._world.rng.gauss(1.0, self._world.noise)
        goodput = min(load, self._truth.streams) * self._truth.per_stream * noise
        is_carried = load <= self._truth.streams
        why_not = "" if is_carried else f"{OBJECTIVE} is held by 50.0% of 8 requests"
        missed = {OBJECTIVE: (0 if is_carried else 4 * effort, 8 * effort)}
        latencies = {"ttft_p50": 0.01, "ttft_p99": None, "tpot_p50": 0.002, "tpot_p99": None}
        self._world.num_probes += 1
        return Probe(load, goodput, 100 * goodput, 100 / load, 8 * effort, 0, missed, latencies, 2.0 * effort, why_not)

    async def answer(self, prompts: Sequence[str]) -> tuple[str, ...]:
        return tuple("as ever" for _ in prompts)

    async def score(self, texts: Sequence[str]) -> tuple[tuple[float, ...], ...] | None:
        return tuple(tuple(-1.0 - self._truth.loss for _ in range(10)) for _ in texts)


class SimulatedLaunches:
    """`truth_of` says what options do; after `kill_after` ticks everything ends, as if the process were killed."""

    def __init__(self, truth_of: Callable[[Mapping[str, Any]], Truth], noise: float = 0.0, seed: int = 0) -> None:
        self.clock = Clock()
        self.noise = noise
        self.rng = random.Random(seed)
        self.kill_after: int | None = None
        self.num_running = 0
        self.num_probes = 0
        self.launched: list[dict[str, Any]] = []
        self._truth_of = truth_of

    def tick(self, seconds: float) -> None:
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after < 0:
                raise Killed
        self.clock.now_s += seconds

    @asynccontextmanager
    async def launch(self, options: Mapping[str, Any]) -> AsyncIterator[SimulatedEngine]:
        truth = self._truth_of(options)
        assert self.num_running == 0, "two engines at a time would measure each other"
        self.launched.append(dict(options))
        self.tick(truth.start_s)
        if truth.start_error:
            raise StartError(truth.start_error)
        self.num_running += 1
        try:
            yield SimulatedEngine(self, truth)
        finally:
            self.num_running -= 1
