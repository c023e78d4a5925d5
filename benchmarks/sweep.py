"""Where a server stands: one request at a time, full throughput, then open loops at rates in between, lowest first, until
one is more than it carries, or is void because the server failed or the client was too slow.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.beyond import Beyond, beyond_of
from benchmarks.campaign import Level, MeasuredRun, Observer, Plan, level_of, measure_load, warm_up
from benchmarks.client import Client
from benchmarks.loads import ClosedLoad, Load, steady_load
from benchmarks.traffic.arrivals import Spacing
from benchmarks.validity import MIN_E2E_IN_WINDOW

RATE_DURATION_S = 40.0
"""Over-saturation is not shown in less than 30 s between the first request and the last."""
RATE_ANSWERS = MIN_E2E_IN_WINDOW + 2.0
"""A rate that is shorter than some answers is not valid; under load they take longer than alone."""
_POISSON = Spacing()
_NOBODY = Observer()


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far and how finely."""

    num_rates: int = 5
    duration_s: float = RATE_DURATION_S
    """Of each rate, at least."""
    num_streams: int = 64
    """At full throughput."""
    spacing: Spacing = _POISSON
    num_answers: float = 0.0
    """A rate lasts for so many answers of one request at a time, where that is longer."""

    def length_s(self, alone: Level) -> float:
        """Of each rate, by what one request at a time has taken."""
        e2e = alone.pooled.e2e_s
        return max(self.duration_s, self.num_answers * e2e.mean) if e2e else self.duration_s

    def rates(self, lowest: float, highest: float) -> tuple[float, ...]:
        """Evenly spaced strictly between both. Of a server that answers several at once not even twice as fast as one, from
        half of its throughput on: between both it would be busy all the time.
        """
        lowest = min(lowest, highest / 2)
        step = (highest - lowest) / (self.num_rates + 1)
        return tuple(float(f"{lowest + step * number:.4g}") for number in range(1, self.num_rates + 1)) if step else ()


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found."""

    levels: tuple[Level, ...]
    """One stream, full throughput, then the rates that the server carried; last the one at which the sweep stopped, if that is
    void: its faults are the sweep's.
    """
    stop: Beyond | None
    """The rate at which the sweep stopped; of one that is too much, latencies tell how long the run was."""


class Surveyor:
    """Measures one load after the other and counts the runs."""

    def __init__(
        self, client: Client, plan: Plan, on_run: Callable[[MeasuredRun], None], observer: Observer = _NOBODY
    ) -> None:
        self.plan = plan
        self._client = client
        self._on_run = on_run
        self._observer = observer
        self._order = 0

    async def warm_up(self) -> None:
        """Raises WarmUpError."""
        if warm := await warm_up(self._client, self.plan):
            self._observer.warmed(warm)

    async def run(self, load: Load, repeat: int) -> MeasuredRun:
        """One run; different repeats of a load have different requests."""
        self._observer.started(load, repeat, self._order)
        run = await measure_load(self._client, self.plan, load, repeat, self._order)
        self._order += 1
        self._on_run(run)
        return run

    async def level(self, load: Load, is_given_up: Callable[[Level], bool] = lambda _level: False) -> Level:
        """All repeats of a load, one after the other, as the next load depends on it; none after one with which it is given up."""
        runs: list[MeasuredRun] = []
        while True:
            runs.append(await self.run(load, len(runs)))
            level = level_of(load.concurrency, runs, self.plan.num_gpus)
            if len(runs) == self.plan.repeats or is_given_up(level):
                return level

    async def ends(self, num_streams: int) -> tuple[Level, Level]:
        """One at a time, and full throughput."""
        one = await self.level(ClosedLoad(1, self.plan.requests_at(1)))
        return one, await self.level(ClosedLoad(num_streams, self.plan.requests_at(num_streams)))


async def run_sweep(
    client: Client,
    plan: Plan,
    sweep: Sweep,
    on_run: Callable[[MeasuredRun], None],
    observer: Observer = _NOBODY,
) -> Swept:
    """Raises WarmUpError; repeats of a load follow each other, as the next one depends on it."""
    surveyor = Surveyor(client, plan, on_run, observer)
    await surveyor.warm_up()
    return await swept(surveyor, sweep)


async def swept(surveyor: Surveyor, sweep: Sweep) -> Swept:
    """The sweep of a server that is warm."""
    ends = await surveyor.ends(sweep.num_streams)
    levels = list(ends)
    for rate in sweep.rates(*map(arrival_rate, ends)):
        load = steady_load(rate, sweep.spacing, sweep.length_s(ends[0]))
        found = await surveyor.level(load, lambda level: beyond_of(level) is not None)
        stop = beyond_of(found)
        if stop is None or stop.cause.is_fault:
            levels.append(found)
        if stop:
            return Swept(tuple(levels), stop)
    return Swept(tuple(levels), None)


def arrival_rate(level: Level) -> float:
    """Requests per second, or sessions where requests are turns of them: what an open loop offers."""
    records = [record for run in level.runs for record in run.load.records]
    share = sum(record.turn == 0 for record in records) / len(records) if records else 1.0
    return level.pooled.request_rate * share
