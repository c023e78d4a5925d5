"""Reports of GuideLLM (`benchmarks.json`, report version 2), read. Benchmarks of a report at the same load are its repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.foreign.definitions import GUIDELLM
from benchmarks.foreign.measured import (
    ALL_AT_ONCE,
    MIN_REPEATS,
    ForeignError,
    Measured,
    MeasuredLoad,
    between,
    rate,
    sampled,
    streams,
)
from benchmarks.statistics.interval import Interval

Document = Mapping[str, Any]
REPORT_VERSION = 2
_MS, _S = 1e-3, 1.0
_LATENCIES = {
    "time_to_first_token_ms": ("ttft_s", _MS),
    "inter_token_latency_ms": ("tpot_s", _MS),
    "time_per_output_token_ms": ("tpot_with_first_s", _MS),
    "request_latency": ("e2e_s", _S),
}
"""Their names, ours, and the unit."""
_RATES = {"output_tokens_per_second": "output_tps", "requests_per_second": "request_rate"}
_PER_REQUEST = ("time_to_first_token_ms", "request_latency")
"""Each request weighs the same in these; in the others GuideLLM weighs by tokens, which samples alone do not show."""


def is_guidellms(document: Document) -> bool:
    """Whether it is a report."""
    return isinstance(document.get("benchmarks"), list) and "guidellm_version" in (document.get("metadata") or {})


def read(document: Document) -> Measured:
    """Raises ForeignError for another version, and for a report without a benchmark."""
    metadata = document["metadata"]
    if metadata.get("version") != REPORT_VERSION:
        raise ForeignError(f"a GuideLLM report of version {metadata.get('version')}: {REPORT_VERSION} is read")
    if not document["benchmarks"]:
        raise ForeignError("a GuideLLM report without a benchmark")
    by_load: dict[str, list[Document]] = {}
    for benchmark in document["benchmarks"]:
        by_load.setdefault(_load_name(benchmark["config"]["strategy"]), []).append(benchmark)
    loads = tuple(_load(name, runs) for name, runs in by_load.items())
    return Measured(GUIDELLM, _model(document), loads, str(metadata["guidellm_version"]))


def _model(document: Document) -> str:
    """As the backend was told, or found out."""
    backend = document["benchmarks"][0]["config"].get("backend") or {}
    return str(backend.get("model") or "")


def _load_name(strategy: Document) -> str:
    kind = strategy["type_"]
    if kind == "synchronous":
        return streams(1)
    if kind == "concurrent":
        return streams(int(strategy["streams"]))
    if kind in ("constant", "poisson"):
        return rate(float(strategy["rate"]))
    at_once = strategy.get("max_concurrency")
    return f"{kind}, {at_once} at once" if at_once else ALL_AT_ONCE if kind == "throughput" else str(kind)


def _load(name: str, runs: Sequence[Document]) -> MeasuredLoad:
    totals = [run["metrics"]["request_totals"] for run in runs]
    num_ok, num_failed = (sum(int(total[status] or 0) for total in totals) for status in ("successful", "errored"))
    return MeasuredLoad(
        name, dict(_figures(runs)), num_ok + num_failed, num_failed, _mean(runs, "prompt_token_count"),
        _mean(runs, "output_token_count"), len(runs),
    )  # fmt: skip


def _figures(runs: Sequence[Document]) -> Iterator[tuple[str, Interval]]:
    """By repeats where there are enough; else by the requests of the one run, as far as the report kept them all."""
    for theirs, name in _RATES.items():
        values = [summary["mean"] for run in runs if (summary := _summary(run, theirs))]
        if values:
            yield name, between(values)
    for theirs, (name, unit) in _LATENCIES.items():
        summaries = [summary for run in runs if (summary := _summary(run, theirs))]
        listed = _listed(runs[0], theirs, unit) if len(runs) < MIN_REPEATS else {}
        for which in ("mean", "p50", "p99"):
            values = [unit * (found["mean"] if which == "mean" else found["percentiles"][which]) for found in summaries]
            if values:
                yield f"{name}.{which}", (listed.get(which) if len(values) == 1 else None) or between(values)


def _summary(run: Document, theirs: str) -> Document | None:
    """Of answered requests; None where there is none."""
    found = (run["metrics"].get(theirs) or {}).get("successful")
    return found if found and found["count"] and found["mean"] else None


def _listed(run: Document, theirs: str, unit: float) -> dict[str, Interval]:
    requests = (run.get("requests") or {}).get("successful") or []
    if theirs not in _PER_REQUEST or len(requests) != run["metrics"]["request_totals"]["successful"]:
        return {}
    ordered = sorted(requests, key=lambda request: request["request_start_time"] or 0.0)
    return sampled([unit * request[theirs] for request in ordered if request.get(theirs) is not None])


def _mean(runs: Sequence[Document], theirs: str) -> float | None:
    found = [summary for run in runs if (summary := _summary(run, theirs))]
    num = sum(summary["count"] for summary in found)
    return sum(summary["mean"] * summary["count"] for summary in found) / num if num else None
