"""Benchmarks on the metrics page: whether one is on, so that its load is not taken for users', and what was measured last."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import snapshot as wire
from gateway.control.benchmarkshelf import Run, RunState
from gateway.metrics import BENCHMARKS_FILE


class BenchmarkPage:
    """Writes its part of the page into the workers' folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / BENCHMARKS_FILE

    def write(self, runs: Iterable[Run], measured: Iterable[wire.Measured]) -> None:
        """Whole or not at all: it may be read at any moment."""
        registry = CollectorRegistry()
        registry.register(_Page([*_families(runs, measured)]))
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(generate_latest(registry))
            os.replace(temporary, self._path)
        except OSError:
            with suppress(OSError):
                self._path.unlink()


def _families(runs: Iterable[Run], measured: Iterable[wire.Measured]) -> Iterator[Metric]:
    running = GaugeMetricFamily(
        "forgegate_benchmark_running", "1 while a benchmark asks the model.", labels=("model", "benchmark")
    )
    for run in runs:
        if run.state is RunState.RUNNING:
            running.add_metric((run.body.model, run.id), 1)
    yield running
    rate = GaugeMetricFamily(
        "forgegate_benchmark_output_tokens_per_second", "Of the newest valid benchmark, at its best load.", labels=("model", "load")
    )  # fmt: skip
    when = GaugeMetricFamily(
        "forgegate_benchmark_timestamp_seconds", "When that one ended, Unix seconds.", labels=("model", "load")
    )
    for last in measured:
        rate.add_metric((last.name, last.load), last.output_tps)
        when.add_metric((last.name, last.load), last.at)
    yield from (rate, when)


class _Page(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
