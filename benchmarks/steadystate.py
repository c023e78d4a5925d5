"""What a load's repeats say with their warm-up and cool-down left out, each figure with its interval. Pure, over records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import metrics
from benchmarks.record import Record
from benchmarks.statistics import bootstrap
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.settled import Settling, settling
from benchmarks.statistics.slices import NUM_SLICES, per_second
from benchmarks.statistics.steady import Window, filled_window, steady_window

MSER, FILLED, WHOLE = "mser-5", "all streams at work", "whole run"
_LATENCIES: Mapping[str, Callable[[Record], float | None]] = {
    "ttft_s": metrics.ttft_s, "ttft_user_s": metrics.ttft_user_s, "tpot_s": metrics.tpot_s, "e2e_user_s": metrics.e2e_user_s,
}  # fmt: skip
_QUANTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Run:
    """One repeat: its records and its time, seconds of one clock; `concurrency` is 0 for an open loop."""

    records: Sequence[Record]
    started_s: float
    ended_s: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Which part of a repeat counts, and by what rule it was found."""

    rule: str
    window: Window


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Of one load. A figure is missing where it is not defined, or has too few samples for an interval."""

    kept: tuple[Kept, ...]
    """By repeat."""
    figures: Mapping[str, Interval]
    """`output_tps` and `request_rate` per second; `mean`, `p50` and `p99` of latencies, as `ttft_user_s.p99`, in seconds."""
    settlings: Mapping[str, Settling] = field(default_factory=dict)
    """Of the same figures: whether three repeats and +-5 % are reached, and what it would take."""

    @property
    def measured_s(self) -> float:
        """Seconds that count, of all repeats."""
        return sum(each.window.duration_s for each in self.kept)


def steady_state(runs: Sequence[Run], seed: int = 0) -> SteadyState:
    """Of the repeats of one load; the same records and seed give the same intervals. Raises ValueError without a repeat."""
    if not runs:
        raise ValueError("no repeat to take a steady state from")
    kept = tuple(map(_kept, runs))
    figures = dict(_figures(runs, kept, seed))
    return SteadyState(kept, figures, {name: settling(interval) for name, interval in figures.items()})


def _kept(run: Run) -> Kept:
    """MSER-5 over the slices' output; in a closed loop too short for it, while no stream had run out of requests yet."""
    whole = Window(run.started_s, run.ended_s)
    width_s = whole.duration_s / NUM_SLICES
    starts_s = [run.started_s + place * width_s for place in range(NUM_SLICES)]
    if len(run.records) >= NUM_SLICES and (
        found := steady_window(starts_s, per_second(metrics.token_arrivals(run.records), whole))
    ):
        return Kept(MSER, found)
    if run.concurrency:
        firsts_s = [record.chunk_times_s[0] for record in run.records if record.chunk_times_s]
        if found := filled_window(firsts_s, [record.end_s for record in run.records], run.concurrency):
            return Kept(FILLED, found)
    return Kept(WHOLE, whole)


def _figures(runs: Sequence[Run], kept: Sequence[Kept], seed: int) -> Iterator[tuple[str, Interval]]:
    windows = [each.window for each in kept]
    answered = [sorted((one for one in run.records if one.is_ok), key=lambda one: one.intended_s) for run in runs]
    ends = [[(one.end_s, 1.0) for one in records] for records in answered]
    yield "output_tps", _rate([metrics.token_arrivals(records) for records in answered], windows, seed)
    yield "request_rate", _rate(ends, windows, seed)
    inside = [
        [one for one in records if window.holds(one.intended_s)]
        for records, window in zip(answered, windows, strict=True)
    ]
    for name, of in _LATENCIES.items():
        samples = [[value for one in records if (value := of(one)) is not None] for records in inside]
        if any(samples):
            yield f"{name}.mean", bootstrap.mean(samples, seed=seed)
            for label, q in _QUANTILES.items():
                if interval := bootstrap.percentile(samples, q, seed=seed):
                    yield f"{name}.{label}", interval


def _rate(
    events: Sequence[Iterator[tuple[float, float]] | list[tuple[float, float]]], windows: Sequence[Window], seed: int
) -> Interval:
    slices = [per_second(one, window) for one, window in zip(events, windows, strict=True)]
    widths = [[window.duration_s / NUM_SLICES] * NUM_SLICES for window in windows]
    amounts = [
        [rate * width for rate, width in zip(rates, ws, strict=True)] for rates, ws in zip(slices, widths, strict=True)
    ]
    return bootstrap.ratio(amounts, widths, seed=seed)
