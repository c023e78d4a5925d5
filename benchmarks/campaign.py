"""Several loads, several repeats, interleaved, against one target; every run with fresh prompts and its verdict."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.client import Client
from benchmarks.energy import NOT_KNOWN, Meter, joules, metered
from benchmarks.gauges import Gauges, watched
from benchmarks.loadgen import LoadRun, closed_loop, interleave, open_loop
from benchmarks.loads import ClosedLoad, Load
from benchmarks.metrics import Summary, offered, outcomes, summarise, ttft_user_s
from benchmarks.processes import run_load
from benchmarks.record import Failure, Record
from benchmarks.statistics.binomial import CONFIDENCE
from benchmarks.statistics.goodput import Goodput, goodput
from benchmarks.statistics.little import LittleCheck, little
from benchmarks.statistics.saturation import Saturation, saturation
from benchmarks.statistics.slo import Slo
from benchmarks.statistics.steady import Window
from benchmarks.target import Target
from benchmarks.traffic.request import Request
from benchmarks.validity import Ceiling, Evidence, Verdict, judge
from benchmarks.workload import Workload


class WarmUpError(RuntimeError):
    """Not one warm-up request was answered; carries the first one's failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"no warm-up request was answered; the first: {failure.kind.value}: {failure.detail}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `num_requests` per level and repeat; None takes `requests_per_stream`, at least eight."""

    workload: Workload
    levels: tuple[int, ...]
    num_requests: int | None = None
    repeats: int = 1
    num_warmup: int | None = None
    """None takes as many as the highest level has streams."""
    seed: int = 0
    requests_per_stream: int = 4
    loads: tuple[Load, ...] = ()
    """Instead of the closed loops of `levels`; that then only says with how many streams to warm up."""
    num_processes: int = 1
    """From which the requests are sent."""
    ceiling: Ceiling | None = None
    """Of this client on this machine; None is not judged."""
    gauge: Target | None = None
    """Whose metrics page says how many requests the engine holds; None is not judged."""
    is_synthetic: bool = False
    """The server's weights are declared random."""
    slo: Slo | None = None
    """What each load is held against."""
    num_gpus: int | None = None
    """Behind the endpoint; None gives no rates per GPU."""
    meter: Meter | None = None
    """Of the energy that runs take; None is not measured."""

    @property
    def all_loads(self) -> tuple[Load, ...]:
        """What is measured, in order."""
        return self.loads or tuple(map(self.closed_load, self.levels))

    def closed_load(self, concurrency: int) -> ClosedLoad:
        """The load of a level."""
        return ClosedLoad(concurrency, self.requests_at(concurrency))

    def requests_at(self, concurrency: int) -> int:
        """Requests of one run at this level."""
        return max(8, self.requests_per_stream * concurrency) if self.num_requests is None else self.num_requests

    def seed_of(self, key: int | str, repeat: int) -> str:
        """Seed of one run's request list: the same for every target, different between runs, because an engine with a
        prefix cache would answer a repeated list from its cache.
        """
        return f"{self.seed}/{key}/{repeat}"


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run at one level."""

    repeat: int
    order: int
    """Position in the sequence of all runs, from 0."""
    load: LoadRun
    summary: Summary
    verdict: Verdict
    offered: Load
    """What the run was asked to be."""
    saturation: Saturation | None = None
    """Of an open loop."""
    achieved: float | None = None
    """Of an open loop, the share of the offered rate at which requests were sent."""

    @property
    def label(self) -> str:
        """The load, for people."""
        return self.offered.label


@dataclass(frozen=True, slots=True)
class Level:
    """All repeats of one load."""

    concurrency: int
    """Streams of a closed loop; 0 of an open one."""
    runs: tuple[MeasuredRun, ...]
    pooled: Summary
    """Over the requests of all repeats; rates over their summed durations."""
    look_confidence: float = CONFIDENCE
    """Of the test of an SLO: more than CONFIDENCE for a load that may be tested again and again until the answer is clear."""

    @property
    def label(self) -> str:
        """The load, for people."""
        return self.runs[0].label

    @property
    def output_tps(self) -> tuple[float, float, float]:
        """Median, lowest and highest of the repeats."""
        rates = [run.summary.output_tps for run in self.runs]
        return statistics.median(rates), min(rates), max(rates)

    @property
    def faults(self) -> list[str]:
        """Of all repeats, each with its repeat."""
        return [f"repeat {run.repeat}: {fault}" for run in self.runs for fault in run.verdict.faults]

    @property
    def remarks(self) -> list[str]:
        """Of all repeats, each once."""
        return list(dict.fromkeys(remark for run in self.runs for remark in run.verdict.remarks))


class Observer:
    """Hears how far a campaign is; does nothing with it. `on_run` hears of each run as it ends."""

    def warmed(self, run: LoadRun) -> None:
        """The warm-up is over; not called where there is none."""

    def started(self, load: Load, repeat: int, order: int) -> None:
        """A run begins."""


_NOBODY = Observer()


def level_of(concurrency: int, runs: Sequence[MeasuredRun], num_gpus: int | None = None) -> Level:
    """Take a level's repeats together."""
    records = [record for run in runs for record in run.load.records]
    ordered = tuple(sorted(runs, key=lambda run: run.repeat))
    duration_s = sum(run.load.duration_s for run in runs)
    return Level(concurrency, ordered, summarise(records, duration_s, num_gpus, _energy_j(runs)))


def goodput_of(level: Level, slo: Slo) -> Goodput:
    """All requests of all repeats, as their users feel them: latencies count from when a request was due."""
    records = [record for run in level.runs for record in run.load.records]
    return goodput(outcomes(records), slo, sum(run.load.duration_s for run in level.runs), level.look_confidence)


async def warm_up(client: Client, plan: Plan) -> LoadRun | None:
    """Send the warm-up requests at the highest level; None where the plan has none. Raises WarmUpError if none is answered."""
    highest = max(plan.levels)
    num = highest if plan.num_warmup is None else plan.num_warmup
    if num == 0:
        return None
    requests = plan.workload.requests(num, f"{plan.seed}/warm-up")
    run = await closed_loop(client, requests, highest)
    failures = [record.failure for record in run.records if record.failure]
    if len(failures) == len(run.records):
        raise WarmUpError(failures[0])
    return run


async def measure(client: Client, plan: Plan, concurrency: int, repeat: int, order: int) -> MeasuredRun:
    """One run of a closed loop."""
    return await measure_load(client, plan, plan.closed_load(concurrency), repeat, order)


async def measure_load(client: Client, plan: Plan, load: Load, repeat: int, order: int) -> MeasuredRun:
    """One run. Raises WorkloadError where its requests cannot be made."""
    requests = load.requests(plan.workload, plan.seed_of(load.key, repeat))
    async with watched(plan.gauge) as gauges, metered(plan.meter, client.clock) as readings:
        run = await _send(client, plan, load, requests)
    energy_j = joules(readings, run.started_s, run.ended_s)
    summary = summarise(run.records, run.duration_s, plan.num_gpus, energy_j)
    evidence = Evidence(plan.ceiling, little=_little(gauges, run), is_synthetic=plan.is_synthetic)
    if not load.concurrency:
        evidence = replace(evidence, offered=offered(run.records), saturation=saturation_of(run.records))
    verdict = judge(summary, run.client_busy, evidence)
    if plan.meter and energy_j is None:
        verdict = replace(verdict, remarks=(*verdict.remarks, NOT_KNOWN))
    achieved = evidence.offered.share if evidence.offered else None
    return MeasuredRun(repeat, order, run, summary, verdict, load, evidence.saturation, achieved)


async def run_plan(
    client: Client, plan: Plan, on_run: Callable[[MeasuredRun], None], observer: Observer = _NOBODY
) -> list[Level]:
    """Warm up, then every load once per repeat; `on_run` hears of each run as it ends."""
    if warm := await warm_up(client, plan):
        observer.warmed(warm)
    runs: dict[str, list[MeasuredRun]] = {load.key: [] for load in plan.all_loads}
    for order, (repeat, load) in enumerate(interleave(plan.all_loads, plan.repeats)):
        observer.started(load, repeat, order)
        run = await measure_load(client, plan, load, repeat, order)
        runs[load.key].append(run)
        on_run(run)
    return [level_of(load.concurrency, runs[load.key], plan.num_gpus) for load in plan.all_loads]


def _energy_j(runs: Sequence[MeasuredRun]) -> float | None:
    """Of all repeats; None unless that of each is known."""
    known = [run.summary.energy_j for run in runs if run.summary.energy_j is not None]
    return math.fsum(known) if known and len(known) == len(runs) else None


def _little(gauges: Gauges, run: LoadRun) -> LittleCheck | None:
    """None where the engine was not asked, or did not say."""
    if not gauges:
        return None
    spans = [(record.sent_s, record.end_s) for record in run.records if record.sent_s is not None]
    return little(gauges, spans, Window(run.started_s, run.ended_s))


def saturation_of(records: Sequence[Record]) -> Saturation:
    """Whether requests in flight (from when they were due) and their ttft grew for as long as the load came in."""
    last_s = max(record.intended_s for record in records)
    changes = sorted([*((record.intended_s, 1) for record in records), *((record.end_s, -1) for record in records)])
    heights = itertools.accumulate(step for _, step in changes)
    in_flight = [(at_s, float(num)) for (at_s, _), num in zip(changes, heights, strict=True) if at_s <= last_s]
    waits = [(record.intended_s, wait_s) for record in records if (wait_s := ttft_user_s(record)) is not None]
    return saturation(in_flight, waits)


async def _send(client: Client, plan: Plan, load: Load, requests: Sequence[Request]) -> LoadRun:
    if plan.num_processes > 1:
        return await run_load(client.options, requests, load.concurrency, plan.num_processes)
    if load.concurrency:
        return await closed_loop(client, requests, load.concurrency)
    return await open_loop(client, requests)
