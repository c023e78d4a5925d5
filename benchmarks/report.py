"""What a reader gets: a table for people, JSON with a version for programs, both with the environment."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import metrics
from benchmarks.campaign import Level, MeasuredRun, Plan
from benchmarks.environment import environment, shown_command
from benchmarks.metrics import Distribution

FORMAT = "forgegate.benchmark"
FORMAT_VERSION = 1


def document(kind: str, command: Sequence[str], **content: Any) -> dict[str, Any]:
    """The frame of every result file: what it is, how it was made and where."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "metrics_version": metrics.VERSION,
        "kind": kind,
        "command": shown_command(command),
        "environment": environment(),
        **content,
    }


def run_document(command: Sequence[str], url: str, plan: Plan, levels: Sequence[Level]) -> dict[str, Any]:
    """The result of `bench run`."""
    faults = [f"{level.concurrency} streams, {fault}" for level in levels for fault in level.faults]
    return document(
        "run",
        command,
        url=url,
        plan=plan_dict(plan),
        is_valid=not faults,
        faults=faults,
        levels=[level_dict(level) for level in levels],
    )


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Everything that decides which bytes are sent, but for prompts that came from a file."""
    workload = plan.workload
    return {
        "loop": "closed",
        "levels": list(plan.levels),
        "requests": {str(concurrency): plan.requests_at(concurrency) for concurrency in plan.levels},
        "repeats": plan.repeats,
        "seed": plan.seed,
        "workload": {
            "model": workload.model,
            "endpoint": workload.endpoint.value,
            "input_tokens": str(workload.input_tokens),
            "output_tokens": str(workload.output_tokens),
            "prompt_form": "file" if workload.prompts else workload.prompt_form.value,
            "ignore_eos": workload.ignore_eos,
            "min_tokens": workload.min_tokens,
            "temperature": workload.temperature,
            "extra": workload.extra,
        },
    }


def level_dict(level: Level) -> dict[str, Any]:
    """One level with its repeats."""
    median, low, high = level.output_tps
    return {
        "concurrency": level.concurrency,
        "output_tps": {"median": median, "min": low, "max": high},
        "is_valid": not level.faults,
        "faults": level.faults,
        "remarks": level.remarks,
        "pooled": asdict(level.pooled),
        "runs": [_run_dict(run) for run in level.runs],
    }


def dump(result: dict[str, Any]) -> bytes:
    """Indented JSON, the newline included."""
    return orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write(path: Path, data: bytes) -> None:
    """Write a result file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def print_levels(levels: Sequence[Level], console: Console) -> None:
    """The table of `bench run`, then remarks and faults."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("streams", "ok/asked", "output tok/s", "min-max", "req/s"):
        table.add_column(name, justify="right")
    for name in ("ttft ms p50 / p99", "tpot ms p50 / p99", "itl ms p50 / p99", "e2e ms p50 / p99"):
        table.add_column(name, justify="right")
    for level in levels:
        table.add_row(*_row(level))
    console.print(table)
    for level in levels:
        for remark in level.remarks:
            console.print(f"{level.concurrency} streams: note: {escape(remark)}")
        for fault in level.faults:
            console.print(f"[bold red]INVALID[/] {level.concurrency} streams, {escape(fault)}")


def progress_line(run: MeasuredRun, num_runs: int) -> str:
    """One line when a run has ended."""
    state = "" if run.verdict.is_valid else "  INVALID: " + "; ".join(run.verdict.faults)
    return (
        f"[{run.order + 1}/{num_runs}] {run.load.concurrency} streams, repeat {run.repeat}: "
        f"{run.summary.output_tps:,.0f} tok/s, {run.summary.num_ok}/{run.summary.num_requests} answered{state}"
    )


def milliseconds(of: Distribution | None) -> str:
    """`p50 / p99`; `-` where undefined or beyond what the samples can tell."""
    return "-" if of is None else f"{_ms(of.p50)} / {_ms(of.p99)}"


def _row(level: Level) -> list[str]:
    pooled = level.pooled
    median, low, high = level.output_tps
    spread = f"{low:,.0f}-{high:,.0f}" if len(level.runs) > 1 else ""
    latencies = [milliseconds(of) for of in (pooled.ttft_s, pooled.tpot_s, pooled.itl_s, pooled.e2e_s)]
    counts = f"{pooled.num_ok}/{pooled.num_requests}"
    return [str(level.concurrency), counts, f"{median:,.1f}", spread, f"{pooled.request_rate:,.2f}", *latencies]


def _run_dict(run: MeasuredRun) -> dict[str, Any]:
    return {
        "repeat": run.repeat,
        "order": run.order,
        "client_busy": run.load.client_busy,
        "num_connects": run.load.num_connects,
        "is_valid": run.verdict.is_valid,
        "faults": list(run.verdict.faults),
        "remarks": list(run.verdict.remarks),
        "summary": asdict(run.summary),
    }


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.2f}"
