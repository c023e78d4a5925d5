"""The gateway's metrics: one table, cheap to feed, exposed for all workers by any of them.

Ended requests arrive as the lines of the access log, many at a time: an increment in prometheus_client takes a lock and
rewrites a mapped file, and five of them per request would cost as much as relaying it. A worker that is killed loses
what it had not booked yet, half a second's worth.

Labels hold only names that the snapshot knows: a client cannot make series by inventing model names. Nor does training:
a counter's series last as long as its files, and each version of an adapter would add dozens, so requests are counted
under the alias that they asked for (`support`), those that named a version under `support@*`. Which version an alias
serves and where it is resident are gauges of the newest snapshot, gone with the version; the access log has it per request.

What engines say of themselves, and how the versions of aliases fare, is gathered by control and stands at the page's end.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway.accesslog import AccessLine
from gateway.counters import Counters
from gateway.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
MILLISECONDS = tuple(bound * 1000 for bound in SECONDS)
CLIENT_GONE = 499
ENGINES_FILE = "engines.prom"
"""In PROMETHEUS_MULTIPROC_DIR: what engines say of themselves, written by control (`gateway.control.loadwatch`)."""
ADAPTERS_FILE = "adapters.prom"
"""There too: how the versions of aliases fare (`gateway.control.watching`)."""
BENCHMARKS_FILE = "benchmarks.prom"
"""There too: whether a benchmark is on, and what was measured last (`gateway.control.benchmarkpage`)."""
_OF_CONTROL = (ENGINES_FILE, ADAPTERS_FILE, BENCHMARKS_FILE)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of the table."""

    name: str
    kind: str
    """`counter`, `histogram` (seconds), `gauge` (read at the scrape) or `sum` (a gauge that each worker sets)."""
    labels: tuple[str, ...]
    help: str


TABLE = (
    Row("forgegate_requests", "counter", ("model", "engine", "status"), "Requests ended, by what ended them."),
    Row("forgegate_request_duration_seconds", "histogram", ("model", "engine"), "From a complete request to its end."),
    Row(
        "forgegate_time_to_first_byte_seconds",
        "histogram",
        ("model", "engine"),
        "From a complete request to the first byte of the answer's body.",
    ),
    Row("forgegate_upstream_connect_seconds", "histogram", ("engine",), "Opening a new connection to an engine."),
    Row("forgegate_response_bytes", "counter", ("model", "engine"), "Bytes of answers received from engines."),
    Row("forgegate_disconnects", "counter", ("model",), "Clients that left before their answer was complete."),
    Row("forgegate_retries", "counter", ("engine",), "Requests sent again after this engine failed them."),
    Row("forgegate_adapter_wait_seconds", "histogram", ("model",), "Waits of requests whose adapter no engine held."),
    Row("forgegate_adapter_waiting", "sum", (), "Requests that now wait so, in all workers."),
    Row("forgegate_engine_wait_seconds", "histogram", ("model",), "Waits of requests until an engine had started."),
    Row("forgegate_engine_waiting", "sum", (), "Requests that now wait for an engine, in all workers."),
    Row("forgegate_adapter_resident", "gauge", ("adapter", "engine"), "1 where an engine holds a version, proven."),
    Row("forgegate_alias_share", "gauge", ("alias", "adapter"), "Part of an alias's traffic that a version gets."),
    Row("forgegate_conversations", "counter", ("outcome",), "Sampled conversations: written, or dropped and why."),
    Row("forgegate_errors", "counter", ("class",), "Failures, by the code in the error envelope."),
    Row("forgegate_requests_running", "gauge", ("engine",), "Requests now on an engine, from all workers."),
    Row("forgegate_outstanding_tokens", "gauge", ("engine",), "Estimated tokens an engine still has to compute."),
    Row("forgegate_engine_state", "gauge", ("model", "engine", "state"), "1 for the state an engine is in."),
    Row("forgegate_connections", "gauge", ("worker",), "Client connections of each worker that takes any."),
    Row("forgegate_snapshot_version", "gauge", (), "Version of the snapshot that this worker decides from."),
)


def continue_files_of(column: int) -> None:
    """Book into the files of this worker's column, before the first metric is made: what a dead predecessor counted stays counted.

    prometheus_client names the files by process; those of every worker that ever died would lie there and be read at each scrape.
    """
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: column)  # type: ignore[no-untyped-call]


class _Series:
    """What one (model, engine, status) has gathered and not yet moved on."""

    __slots__ = ("duration_sum_ms", "durations", "num", "num_bytes", "ttfb_sum_ms", "ttfbs")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start from nothing."""
        self.num = 0
        self.num_bytes = 0
        self.durations = [0] * (len(SECONDS) + 1)
        self.duration_sum_ms = 0.0
        self.ttfbs = [0] * (len(SECONDS) + 1)
        self.ttfb_sum_ms = 0.0


class Metrics:
    """The table in use. `registry` None: the files of PROMETHEUS_MULTIPROC_DIR where set, else a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._is_multiprocess = registry is None and "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = registry or CollectorRegistry()
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._counters = {row.name: self._counter(row) for row in TABLE if row.kind == "counter"}
        self._histograms = {row.name: self._histogram(row) for row in TABLE if row.kind == "histogram"}
        self._sums = {row.name: self._sum(row) for row in TABLE if row.kind == "sum"}
        self.set_waiting(0, 0)  # the files may hold what a dead predecessor had

    def observe(self, lines: list[AccessLine]) -> None:
        """Count ended requests."""
        series_of = self._series
        for line in lines:
            # A name without a resolution is whatever a client made up.
            model = line.model if line.resolved else ""
            if line.base and model == line.resolved:
                model = model.partition("@")[0] + "@*"
            key = (model, line.engine, line.status)
            series = series_of.get(key)
            if series is None:
                series = series_of[key] = _Series()
            series.num += 1
            series.num_bytes += line.bytes
            series.durations[bisect_left(MILLISECONDS, line.duration_ms)] += 1
            series.duration_sum_ms += line.duration_ms
            if line.ttfb_ms is not None:
                series.ttfbs[bisect_left(MILLISECONDS, line.ttfb_ms)] += 1
                series.ttfb_sum_ms += line.ttfb_ms
            if line.adapter_wait_ms is not None:
                self._histograms["forgegate_adapter_wait_seconds"].labels(model).observe(line.adapter_wait_ms / 1000)
            if line.engine_wait_ms is not None:
                self._histograms["forgegate_engine_wait_seconds"].labels(model).observe(line.engine_wait_ms / 1000)
            if line.error:
                self._count_failure(line.error, key)
        self._move()

    def observe_connect(self, engine: str, seconds: float) -> None:
        """Count one new connection to an engine."""
        self._histograms["forgegate_upstream_connect_seconds"].labels(engine).observe(seconds)

    def count_retry(self, engine: str) -> None:
        """Count a request that goes elsewhere, or to a fresh connection, after `engine` failed it."""
        self._counters["forgegate_retries"].labels(engine).inc()

    def count_conversations(self, counts: Mapping[str, int]) -> None:
        """Count what became of conversations that were to be kept, by outcome."""
        for outcome, num in counts.items():
            self._counters["forgegate_conversations"].labels(outcome).inc(num)

    def set_waiting(self, num_for_adapters: int, num_for_engines: int) -> None:
        """Say how many requests of this worker wait, for what."""
        self._sums["forgegate_adapter_waiting"].set(num_for_adapters)
        self._sums["forgegate_engine_waiting"].set(num_for_engines)

    def expose(self, snapshot: Snapshot, counters: Counters) -> bytes:
        """Return the page: what all workers had booked, and the gauges as of now. May run in a thread."""
        registry = CollectorRegistry()
        if self._is_multiprocess:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(_Forward(self._registry.collect))
        registry.register(_Forward(lambda: _gauges(snapshot, counters)))
        return generate_latest(registry) + b"".join(map(_of_control, _OF_CONTROL))

    def _count_failure(self, code: str, key: tuple[str, str, int]) -> None:
        self._counters["forgegate_errors"].labels(code).inc()
        if key[2] == CLIENT_GONE:
            self._counters["forgegate_disconnects"].labels(key[0]).inc()

    def _move(self) -> None:
        """Move what the series gathered into prometheus_client."""
        for (model, engine, status), series in self._series.items():
            if not series.num:
                continue
            self._counters["forgegate_requests"].labels(model, engine, str(status)).inc(series.num)
            if series.num_bytes:
                self._counters["forgegate_response_bytes"].labels(model, engine).inc(series.num_bytes)
            durations = self._histograms["forgegate_request_duration_seconds"].labels(model, engine)
            add_to_histogram(durations, series.durations, series.duration_sum_ms / 1000)
            ttfbs = self._histograms["forgegate_time_to_first_byte_seconds"].labels(model, engine)
            add_to_histogram(ttfbs, series.ttfbs, series.ttfb_sum_ms / 1000)
            series.reset()

    def _counter(self, row: Row) -> Counter:
        return Counter(row.name, row.help, row.labels, registry=self._registry)

    def _histogram(self, row: Row) -> Histogram:
        return Histogram(row.name, row.help, row.labels, registry=self._registry, buckets=SECONDS)

    def _sum(self, row: Row) -> Gauge:
        return Gauge(row.name, row.help, row.labels, registry=self._registry, multiprocess_mode="sum")


def add_to_histogram(child: Histogram, buckets: list[int], total: float) -> None:
    """Add observations that were already sorted into the bounds of `SECONDS`.

    prometheus_client has no public call for this; a test holds the effect against `observe`.
    """
    if not any(buckets):
        return
    child._sum.inc(total)
    for index, num in enumerate(buckets):
        if num:
            child._buckets[index].inc(num)


def _of_control(name: str) -> bytes:
    """What control wrote last; empty before its first look."""
    try:
        return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], name).read_bytes()
    except (KeyError, OSError):
        return b""


class _Forward(Collector):
    """A collector made of a function."""

    def __init__(self, collect: Callable[[], object]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        yield from self._collect()  # type: ignore[misc]


def _gauges(snapshot: Snapshot, counters: Counters) -> Iterator[Metric]:
    families = {
        row.name: GaugeMetricFamily(row.name, row.help, labels=row.labels) for row in TABLE if row.kind == "gauge"
    }
    families["forgegate_snapshot_version"].add_metric((), snapshot.version)
    for column, num in counters.connections().items():
        families["forgegate_connections"].add_metric((str(column),), num)
    seen: set[str] = set()
    for model in snapshot.models:
        for engine in model.engines:
            families["forgegate_engine_state"].add_metric((model.name, engine.id, engine.state), 1)
            if engine.id not in seen:  # an engine may serve several names
                seen.add(engine.id)
                families["forgegate_requests_running"].add_metric((engine.id,), counters.running(engine.slot))
                families["forgegate_outstanding_tokens"].add_metric(
                    (engine.id,), counters.outstanding_tokens(engine.slot)
                )
    _add_adapters(snapshot, families["forgegate_adapter_resident"], families["forgegate_alias_share"])
    yield from families.values()


def _add_adapters(snapshot: Snapshot, resident: GaugeMetricFamily, shares: GaugeMetricFamily) -> None:
    for adapter in snapshot.adapters:
        if adapter.is_candidate:
            continue  # the admin's alone, and the page is open
        for engine in adapter.engines:
            resident.add_metric((adapter.name, engine), 1)
    for alias in snapshot.aliases:
        total = sum(share.weight for share in alias.shares)
        for share in alias.shares:
            shares.add_metric((alias.name, share.adapter), share.weight / total if total else 0.0)
