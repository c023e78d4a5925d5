"""Where a server stands: one request at a time, full throughput, then open loops at rates in between, lowest first, until
one is more than it carries.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.campaign import Level, MeasuredRun, Plan, level_of, measure_load, warm_up
from benchmarks.client import Client
from benchmarks.loads import ClosedLoad, Load, OpenLoad
from benchmarks.traffic.arrivals import Arrivals, Spacing, Steady
from benchmarks.validity import ACHIEVED_LIMIT

_POISSON = Spacing()


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far and how finely."""

    num_rates: int = 5
    duration_s: float = 30.0
    """Of each rate; over-saturation is not shown in less than 30 s."""
    num_streams: int = 64
    """At full throughput."""
    spacing: Spacing = _POISSON

    def rates(self, lowest: float, highest: float) -> tuple[float, ...]:
        """Evenly spaced strictly between both; none where the server answers several at once no faster than one."""
        step = (highest - lowest) / (self.num_rates + 1)
        return tuple(lowest + step * number for number in range(1, self.num_rates + 1)) if step > 0 else ()


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found."""

    levels: tuple[Level, ...]
    """One stream, full throughput, then the rates that the server carried."""
    too_much: Level | None
    """The rate at which the sweep stopped; its latencies tell how long the run was."""


async def run_sweep(client: Client, plan: Plan, sweep: Sweep, on_run: Callable[[MeasuredRun], None]) -> Swept:
    """Raises WarmUpError; repeats of a load follow each other, as the next one depends on it."""
    await warm_up(client, plan)
    order = 0

    async def level(load: Load) -> Level:
        nonlocal order
        runs = []
        for repeat in range(plan.repeats):
            runs.append(await measure_load(client, plan, load, repeat, order))
            on_run(runs[-1])
            order += 1
        return level_of(load.concurrency, runs)

    ends = [await level(ClosedLoad(num, plan.requests_at(num))) for num in (1, sweep.num_streams)]
    levels = list(ends)
    for rate in sweep.rates(*(each.pooled.request_rate for each in ends)):
        found = await level(OpenLoad(Arrivals(Steady(rate), sweep.spacing), duration_s=sweep.duration_s))
        if is_too_much(found):
            return Swept(tuple(levels), found)
        levels.append(found)
    return Swept(tuple(levels), None)


def is_too_much(level: Level) -> bool:
    """True when any repeat's queue grew for as long as requests came, or when its requests could not be sent."""
    return any(
        (run.saturation is not None and run.saturation.is_saturated)
        or (run.achieved is not None and run.achieved < ACHIEVED_LIMIT)
        for run in level.runs
    )
