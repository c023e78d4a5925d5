"""Two endpoints side by side: the same requests to both, in turns, so that what moves the machine moves both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.campaign import MeasuredRun, Plan, measure_load, warm_up
from benchmarks.client import Client
from benchmarks.loads import Load
from benchmarks.metrics import Distribution, Summary
from benchmarks.statistics.difference import Difference, paired

A, B = "A", "B"


def _median(of: Distribution | None) -> float | None:
    return None if of is None else of.p50


FIGURES: Mapping[str, tuple[bool, Callable[[Summary], float | None]]] = {
    "output_tps": (True, lambda summary: summary.output_tps),
    "request_rate": (True, lambda summary: summary.request_rate),
    "ttft_user_s.p50": (False, lambda summary: _median(summary.ttft_user_s)),
    "tpot_s.p50": (False, lambda summary: _median(summary.tpot_s)),
    "e2e_user_s.p50": (False, lambda summary: _median(summary.e2e_user_s)),
}
"""Of one run each: whether more is better, and where it is in the run's summary."""


@dataclass(frozen=True, slots=True)
class Side:
    """One endpoint: its client, and its plan. Both plans draw the same requests; only the model's name may differ."""

    name: str
    client: Client
    plan: Plan


@dataclass(frozen=True, slots=True)
class Match:
    """All pairs at one load."""

    load: Load
    pairs: tuple[tuple[MeasuredRun, MeasuredRun], ...]
    """(A, B) of each repeat."""
    differences: Mapping[str, Difference]
    """B against A, of the figures that every pair has."""

    @property
    def faults(self) -> list[str]:
        """Of all runs, each with its side and repeat."""
        return [
            f"{name}, repeat {run.repeat}: {fault}"
            for pair in self.pairs
            for name, run in zip((A, B), pair, strict=True)
            for fault in run.verdict.faults
        ]


async def run_versus(a: Side, b: Side, on_run: Callable[[str, MeasuredRun], None]) -> list[Match]:
    """Both are warmed up, then every load once per repeat on either, who begins changing each time. Raises WarmUpError."""
    for side in (a, b):
        await warm_up(side.client, side.plan)
    runs: dict[tuple[str, str], list[MeasuredRun]] = {}
    for order, (repeat, load, side) in enumerate(_turns(a, b)):
        run = await measure_load(side.client, side.plan, load, repeat, order)
        runs.setdefault((load.key, side.name), []).append(run)
        on_run(side.name, run)
    return [match_of(load, runs[load.key, A], runs[load.key, B]) for load in a.plan.all_loads]


def match_of(load: Load, a: Sequence[MeasuredRun], b: Sequence[MeasuredRun]) -> Match:
    """Runs of the same repeat make a pair. Raises ValueError with fewer than three pairs."""
    pairs = tuple(zip(a, b, strict=True))
    differences = {}
    for figure, (is_higher_better, of) in FIGURES.items():
        found = [(of(first.summary), of(second.summary)) for first, second in pairs]
        known = [(x, y) for x, y in found if x and y]
        if len(known) == len(pairs):
            differences[figure] = paired(known, is_higher_better)
    return Match(load, pairs, differences)


def _turns(a: Side, b: Side) -> Iterator[tuple[int, Load, Side]]:
    for repeat in range(a.plan.repeats):
        for place, load in enumerate(a.plan.all_loads):
            for side in (a, b) if (repeat + place) % 2 == 0 else (b, a):
                yield repeat, load, side
