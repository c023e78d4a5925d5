"""The table that `bench run` prints, and under it what a reader must know before using it. From a result document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Level = Mapping[str, Any]
_STREAMS = "streams"
_LATENCIES = ("ttft", "tpot", "itl", "e2e")


def print_run(result: Mapping[str, Any], console: Console) -> None:
    """Of a document of kind `run`: its loads, those beyond what the server carries last."""
    levels, beyond = result["levels"], result.get("beyond", [])
    has_slo = "slo" in result
    table = Table(header_style="bold", box=None, pad_edge=False)
    heads = list(_heads([*levels, *beyond], has_slo))
    for name in heads:
        table.add_column(name, justify="right")
    for level in (*levels, *beyond):
        table.add_row(_name(level, heads[0]), *_row(level, has_slo), style="dim" if "because" in level else None)
    console.print(table)
    for line in (*_notes(levels), *_beyond(result), *_promise(result)):
        console.print(line)


def milliseconds(of: Mapping[str, float | None] | None) -> str:
    """`p50 / p99`; `-` where undefined or beyond what the samples can tell."""
    return "-" if of is None else f"{_ms(of['p50'])} / {_ms(of['p99'])}"


def _heads(levels: Sequence[Level], has_slo: bool) -> Iterator[str]:
    yield _STREAMS if all(level["concurrency"] for level in levels) else "load"
    yield from ("ok/asked", "output tok/s", "min-max", "req/s")
    yield from (f"{name} ms p50 / p99" for name in _LATENCIES)
    if has_slo:
        yield from ("goodput req/s", "SLO")


def _name(level: Level, head: str) -> str:
    if head == _STREAMS:
        return str(level["concurrency"])
    return escape(level["label"]) + (" (too much)" if "because" in level else "")


def _row(level: Level, has_slo: bool) -> Iterator[str]:
    pooled, rates = level["pooled"], level["output_tps"]
    is_open = not level["concurrency"]  # users of an open loop have waited since their request was due
    yield f"{pooled['num_ok']}/{pooled['num_requests']}"
    yield f"{rates['median']:,.1f}"
    yield f"{rates['min']:,.0f}-{rates['max']:,.0f}" if len(level["runs"]) > 1 else ""
    yield f"{pooled['request_rate']:,.2f}"
    for name in _LATENCIES:
        yield milliseconds(pooled[f"{name}_user_s" if is_open and name in ("ttft", "e2e") else f"{name}_s"])
    if has_slo:
        yield f"{level['slo']['requests_per_s']:,.2f}"
        yield level["slo"]["answer"] or "-"


def _notes(levels: Sequence[Level]) -> Iterator[str]:
    for level in levels:
        label = escape(level["label"])
        if not level["concurrency"]:
            lag = milliseconds(level["pooled"]["send_lag_s"])
            yield f"{label}: latencies count from when requests were due; sent {lag} ms after (p50 / p99)"
        yield f"{label}: {escape(level['settling']['sentence'])}"
        if "energy" in level:
            yield f"{label}: {escape(level['energy']['sentence'])}"
        yield from (f"{label}: note: {escape(remark)}" for remark in level["remarks"])
        yield from (f"[bold red]INVALID[/] {label}, {escape(fault)}" for fault in level["faults"])


def _beyond(result: Mapping[str, Any]) -> Iterator[str]:
    stopped = result.get("stopped")
    for level in result.get("beyond", []):
        is_stop = stopped is not None and stopped["load"] == level["label"]
        told = "; the sweep stopped there" if is_stop else ""
        yield f"[bold]{escape(level['label'])}: more than the server carries[/]: {escape(level['because'])}{told}"


def _promise(result: Mapping[str, Any]) -> Iterator[str]:
    if "slo" not in result:
        return
    for level in result["levels"]:
        yield f"{escape(level['label'])}: {escape(level['slo']['sentence'])}"
    if "capacity" in result:
        yield f"[bold]{escape(result['capacity']['sentence'])}[/]"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.2f}"
