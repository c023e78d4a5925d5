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
from benchmarks.quantiles import curve
from benchmarks.record import Record
from benchmarks.steadystate import Run, steady_state
from benchmarks.timeline import timeline
from benchmarks.traffic.errors import WorkloadError

FORMAT = "forgegate.benchmark"
FORMAT_VERSION = 1
_CURVES = {"ttft_user_s": metrics.ttft_user_s, "tpot_s": metrics.tpot_s, "e2e_user_s": metrics.e2e_user_s}


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


def run_document(
    command: Sequence[str], url: str, plan: Plan, levels: Sequence[Level], too_much: Level | None = None
) -> dict[str, Any]:
    """The result of `bench run`; `too_much` is the load at which a sweep stopped."""
    faults = [f"{level.label}, {fault}" for level in levels for fault in level.faults]
    return document(
        "run",
        command,
        url=url,
        plan=plan_dict(plan),
        is_valid=not faults,
        faults=faults,
        levels=[level_dict(level) for level in levels],
        **({} if too_much is None else {"too_much": level_dict(too_much)}),
    )


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Everything that decides which bytes are sent, but for prompts that came from a file."""
    workload = plan.workload
    levels = [load.concurrency for load in plan.all_loads if load.concurrency]
    return {
        "loop": "closed" if len(levels) == len(plan.all_loads) else "open" if not levels else "both",
        "levels": levels,
        "requests": {str(load.concurrency): load.as_dict()["requests"] for load in plan.all_loads if load.concurrency},
        "loads": [load.as_dict() for load in plan.all_loads],
        "processes": plan.num_processes,
        "repeats": plan.repeats,
        "seed": plan.seed,
        "client_ceiling": plan.ceiling and asdict(plan.ceiling),
        "synthetic_weights": plan.is_synthetic,
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
            "shared_prefix": str(workload.prefix) if workload.prefix else None,
            "adapters": workload.mix.as_dict() if workload.mix else None,
            "turns": str(workload.turns) if workload.turns else None,
            "think_time": str(workload.pause),
            "cancellations": str(workload.cancellations) if workload.cancellations else None,
        },
    }


def level_dict(level: Level) -> dict[str, Any]:
    """One level with its repeats."""
    median, low, high = level.output_tps
    return {
        "concurrency": level.concurrency,
        **({} if (rate := level.runs[0].offered.rate) is None else {"rate": rate}),
        "output_tps": {"median": median, "min": low, "max": high},
        "is_valid": not level.faults,
        "faults": level.faults,
        "remarks": level.remarks,
        "pooled": asdict(level.pooled),
        "steady": steady_dict(level),
        "curves": curves_dict([record for run in level.runs for record in run.load.records]),
        "runs": [_run_dict(run) for run in level.runs],
    }


def steady_dict(level: Level) -> dict[str, Any]:
    """What is left of the repeats without warm-up and cool-down, each figure with its interval and whether it is settled."""
    loads = [run.load for run in level.runs]
    found = steady_state([Run(each.records, each.started_s, each.ended_s, each.concurrency) for each in loads])
    kept = zip(loads, found.kept, strict=True)
    return {
        "kept": [
            {"rule": part.rule, "start_s": part.window.start_s - load.started_s, "duration_s": part.window.duration_s}
            for load, part in kept
        ],
        "figures": {
            name: {**asdict(interval), "settling": found.settlings[name].sentence(found.measured_s)}
            for name, interval in found.figures.items()
        },
    }


def curves_dict(records: Sequence[Record]) -> dict[str, list[float]]:
    """Distributions of answered requests in seconds, read at `quantiles.SHARES`; what no request has is left out."""
    answered = [record for record in records if record.is_ok]
    samples = {
        name: [value for record in answered if (value := of(record)) is not None] for name, of in _CURVES.items()
    }
    return {name: [round(value, 7) for value in curve(values)] for name, values in samples.items() if values}


def dump(result: dict[str, Any]) -> bytes:
    """Indented JSON, the newline included."""
    return orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def require_writable(path: Path) -> None:
    """Makes the folder, before hours are measured for it. Raises WorkloadError that names what is in the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".partial").touch()
        path.with_name(path.name + ".partial").unlink()
    except OSError as exc:
        raise WorkloadError(f"--out {path}: cannot be written ({exc.strerror or exc}): name another file") from exc


def write(path: Path, data: bytes) -> None:
    """Write a result file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def print_levels(levels: Sequence[Level], console: Console) -> None:
    """The table of `bench run`, then remarks and faults."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    is_closed = all(level.concurrency for level in levels)
    for name in ("streams" if is_closed else "load", "ok/asked", "output tok/s", "min-max", "req/s"):
        table.add_column(name, justify="right")
    for name in ("ttft ms p50 / p99", "tpot ms p50 / p99", "itl ms p50 / p99", "e2e ms p50 / p99"):
        table.add_column(name, justify="right")
    for level in levels:
        table.add_row(*_row(level))
    console.print(table)
    for level in levels:
        if not level.concurrency:
            lag = milliseconds(level.pooled.send_lag_s)
            console.print(
                f"{escape(level.label)}: latencies count from when requests were due; sent {lag} ms after (p50 / p99)"
            )
        for remark in level.remarks:
            console.print(f"{escape(level.label)}: note: {escape(remark)}")
        for fault in level.faults:
            console.print(f"[bold red]INVALID[/] {escape(level.label)}, {escape(fault)}")


def progress_line(run: MeasuredRun, num_runs: int) -> str:
    """One line when a run has ended."""
    state = "" if run.verdict.is_valid else "  INVALID: " + "; ".join(run.verdict.faults)
    return (
        f"[{run.order + 1}/{num_runs}] {run.label}, repeat {run.repeat}: "
        f"{run.summary.output_tps:,.0f} tok/s, {run.summary.num_ok}/{run.summary.num_requests} answered{state}"
    )


def milliseconds(of: Distribution | None) -> str:
    """`p50 / p99`; `-` where undefined or beyond what the samples can tell."""
    return "-" if of is None else f"{_ms(of.p50)} / {_ms(of.p99)}"


def _row(level: Level) -> list[str]:
    pooled = level.pooled
    median, low, high = level.output_tps
    spread = f"{low:,.0f}-{high:,.0f}" if len(level.runs) > 1 else ""
    is_open = not level.concurrency  # users of an open loop have waited since their request was due
    ttft, e2e = (pooled.ttft_user_s, pooled.e2e_user_s) if is_open else (pooled.ttft_s, pooled.e2e_s)
    latencies = [milliseconds(of) for of in (ttft, pooled.tpot_s, pooled.itl_s, e2e)]
    counts = f"{pooled.num_ok}/{pooled.num_requests}"
    load = str(level.concurrency) if level.concurrency else escape(level.label)
    return [load, counts, f"{median:,.1f}", spread, f"{pooled.request_rate:,.2f}", *latencies]


def _run_dict(run: MeasuredRun) -> dict[str, Any]:
    return {
        "repeat": run.repeat,
        "order": run.order,
        "client_busy": run.load.client_busy,
        "num_connects": run.load.num_connects,
        "pacing_s": asdict(pacing) if (pacing := run.load.pacing_s) else None,
        "is_valid": run.verdict.is_valid,
        "faults": list(run.verdict.faults),
        "remarks": list(run.verdict.remarks),
        "summary": asdict(run.summary),
        "timeline": asdict(timeline(run.load.records, run.load.started_s, run.load.ended_s)),
    }


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.2f}"
