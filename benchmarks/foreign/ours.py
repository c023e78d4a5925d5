"""A result of `forgegate bench run`, beside those of others: whole runs, as theirs are, not the steady part of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.foreign.definitions import LATENCIES, OURS, RATES
from benchmarks.foreign.measured import ForeignError, Measured, MeasuredLoad, between
from benchmarks.pages.runcharts import name_of
from benchmarks.report import FORMAT, FORMAT_VERSION
from benchmarks.statistics.interval import Interval

Document = Mapping[str, Any]


def is_ours(document: Document) -> bool:
    """Whether the document says so."""
    return document.get("format") == FORMAT


def read(document: Document) -> Measured:
    """Raises ForeignError for another kind or version, and for a void run."""
    if document.get("kind") != "run" or document.get("format_version") != FORMAT_VERSION:
        raise ForeignError(f"no result of `forgegate bench run` of version {FORMAT_VERSION}")
    if not document["is_valid"]:
        raise ForeignError(f"void: {'; '.join(document['faults'])}")
    version = document["environment"].get("versions", {}).get("forgegate", "")
    model = document["plan"]["workload"]["model"]
    return Measured(OURS, model, tuple(map(_load, document["levels"])), version)


def _load(level: Document) -> MeasuredLoad:
    pooled, summaries = level["pooled"], [run["summary"] for run in level["runs"]]
    num_ok = pooled["num_ok"]
    return MeasuredLoad(
        name_of(level), dict(_figures(pooled, summaries)), pooled["num_requests"], pooled["num_requests"] - num_ok,
        pooled["input_tokens"] / num_ok if num_ok else None, pooled["output_tokens"] / num_ok if num_ok else None, len(summaries),
    )  # fmt: skip


def _figures(pooled: Document, summaries: list[Document]) -> Iterator[tuple[str, Interval]]:
    for name in RATES:
        yield name, between([summary[name] for summary in summaries])
    for name in LATENCIES:
        for which in ("mean", "p50", "p99"):
            values = [_of(summary, name, which) for summary in summaries]
            estimate = _of(pooled, name, which)
            if estimate is not None:
                yield f"{name}.{which}", between([value for value in values if value is not None], estimate)


def _of(summary: Document, name: str, which: str) -> float | None:
    found = summary.get(name)
    value = found.get(which) if found else None
    return None if value is None else float(value)
