"""Several loads, several repeats, interleaved, against one target; every run with fresh prompts and its verdict."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.client import Client
from benchmarks.loadgen import LoadRun, closed_loop, interleave
from benchmarks.metrics import Summary, summarise
from benchmarks.record import Failure
from benchmarks.validity import Verdict, judge
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

    def requests_at(self, concurrency: int) -> int:
        """Requests of one run at this level."""
        return max(8, self.requests_per_stream * concurrency) if self.num_requests is None else self.num_requests

    def seed_of(self, concurrency: int, repeat: int) -> str:
        """Seed of one run's request list: the same for every target, different between runs, because an engine with a
        prefix cache would answer a repeated list from its cache.
        """
        return f"{self.seed}/{concurrency}/{repeat}"


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run at one level."""

    repeat: int
    order: int
    """Position in the sequence of all runs, from 0."""
    load: LoadRun
    summary: Summary
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Level:
    """All repeats at one concurrency."""

    concurrency: int
    runs: tuple[MeasuredRun, ...]
    pooled: Summary
    """Over the requests of all repeats; rates over their summed durations."""

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


def level_of(concurrency: int, runs: Sequence[MeasuredRun]) -> Level:
    """Take a level's repeats together."""
    records = [record for run in runs for record in run.load.records]
    ordered = tuple(sorted(runs, key=lambda run: run.repeat))
    return Level(concurrency, ordered, summarise(records, sum(run.load.duration_s for run in runs)))


async def warm_up(client: Client, plan: Plan) -> None:
    """Send the warm-up requests at the highest level; raises WarmUpError if none is answered."""
    highest = max(plan.levels)
    num = highest if plan.num_warmup is None else plan.num_warmup
    if num == 0:
        return
    requests = plan.workload.requests(num, f"{plan.seed}/warm-up")
    run = await closed_loop(client, plan.workload.endpoint.path, requests, highest)
    failures = [record.failure for record in run.records if record.failure]
    if len(failures) == len(run.records):
        raise WarmUpError(failures[0])


async def measure(client: Client, plan: Plan, concurrency: int, repeat: int, order: int) -> MeasuredRun:
    """One run."""
    requests = plan.workload.requests(plan.requests_at(concurrency), plan.seed_of(concurrency, repeat))
    load = await closed_loop(client, plan.workload.endpoint.path, requests, concurrency)
    summary = summarise(load.records, load.duration_s)
    return MeasuredRun(repeat, order, load, summary, judge(summary, load.client_busy))


async def run_plan(client: Client, plan: Plan, on_run: Callable[[MeasuredRun], None]) -> list[Level]:
    """Warm up, then every level once per repeat; `on_run` hears of each run as it ends."""
    await warm_up(client, plan)
    runs: dict[int, list[MeasuredRun]] = {concurrency: [] for concurrency in plan.levels}
    for order, (repeat, concurrency) in enumerate(interleave(plan.levels, plan.repeats)):
        run = await measure(client, plan, concurrency, repeat, order)
        runs[concurrency].append(run)
        on_run(run)
    return [level_of(concurrency, runs[concurrency]) for concurrency in plan.levels]
