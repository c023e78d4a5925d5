"""What programs get: JSON with a version, all figures, and the environment they were measured in."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from benchmarks import metrics
from benchmarks.beyond import Beyond
from benchmarks.campaign import Level, MeasuredRun, Plan
from benchmarks.capacity import Capacity
from benchmarks.environment import environment, shown_command
from benchmarks.quantiles import curve
from benchmarks.record import Record
from benchmarks.statistics.binomial import Answer
from benchmarks.steadystate import Run, SteadyState, steady_state
from benchmarks.timeline import timeline
from benchmarks.traffic.errors import WorkloadError
from benchmarks.verdicts import capacity_dict, settling_dict, slo_dict, slo_of

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
    command: Sequence[str],
    url: str,
    plan: Plan,
    levels: Sequence[Level],
    *,
    profile: str = "closed",
    beyond: Sequence[Beyond] = (),
    stop: Beyond | None = None,
    capacity: Capacity | None = None,
) -> dict[str, Any]:
    """The result of `bench run`. Loads that were `beyond` what the server carries are in it, and no faults of the run; `stop` is
    the one of them, or the void one of the `levels`, at which a sweep stopped.
    """
    faults = [f"{level.label}, {fault}" for level in levels for fault in level.faults]
    levels_found = [level_dict(level, plan) for level in levels]
    is_void = stop is not None and stop.cause.is_fault
    for level, found in zip(levels, levels_found, strict=True):
        if stop and is_void and level is stop.level:
            found["remarks"].append(f"the sweep stopped here: {stop.because}")
    is_met = capacity.rate is not None if capacity else _is_met(levels_found)
    promise = {"slo": slo_of(plan.slo), "is_slo_met": is_met} if plan.slo else {}
    return document(
        "run",
        command,
        url=url,
        profile=profile,
        plan=plan_dict(plan),
        is_valid=not faults,
        faults=faults,
        **promise,
        **({"capacity": capacity_dict(capacity)} if capacity else {}),
        **(
            {"stopped": {"load": stop.level.label, "cause": stop.cause.value, "because": stop.because}}
            if stop and not is_void
            else {}
        ),
        levels=levels_found,
        beyond=[_beyond_dict(each, plan) for each in beyond],
    )


def _beyond_dict(found: Beyond, plan: Plan) -> dict[str, Any]:
    """A level that breaks every promise, now or later."""
    level = level_dict(found.level, plan)
    if level.get("slo", {}).get("answer"):
        level["slo"]["answer"] = Answer.FAILED.value
    return {**level, "because": found.because}


def _is_met(levels: Sequence[dict[str, Any]]) -> bool | None:
    """Whether the SLO is shown to hold at any load; None where it asks nothing of a load."""
    answers = [level["slo"]["answer"] for level in levels if "slo" in level]
    return None if None in answers else Answer.PASSED.value in answers


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
        **({"energy_gpus": [asdict(gpu) for gpu in plan.meter.gpus]} if plan.meter else {}),
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


def level_dict(level: Level, plan: Plan | None = None) -> dict[str, Any]:
    """One level with its repeats, held against the plan's SLO where it has one."""
    median, low, high = level.output_tps
    steady = steady_state(
        [Run(run.load.records, run.load.started_s, run.load.ended_s, run.load.concurrency) for run in level.runs]
    )
    return {
        "label": level.label,
        "concurrency": level.concurrency,
        **({"num_gpus": plan.num_gpus} if plan and plan.num_gpus else {}),
        **({} if (rate := level.runs[0].offered.rate) is None else {"rate": rate}),
        "output_tps": {"median": median, "min": low, "max": high},
        "is_valid": not level.faults,
        "faults": level.faults,
        "remarks": level.remarks,
        "pooled": asdict(level.pooled),
        "steady": steady_dict(level, steady),
        "settling": settling_dict(steady),
        **({"energy": energy} if plan and plan.meter and (energy := plan.meter.as_dict(level.pooled)) else {}),
        **({"slo": slo_dict(level, plan.slo)} if plan and plan.slo else {}),
        "curves": curves_dict([record for run in level.runs for record in run.load.records]),
        "runs": [_run_dict(run) for run in level.runs],
    }


def steady_dict(level: Level, found: SteadyState) -> dict[str, Any]:
    """What is left of the repeats without warm-up and cool-down, each figure with its interval and whether it is settled."""
    kept = zip((run.load for run in level.runs), found.kept, strict=True)
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


def progress_line(run: MeasuredRun, num_runs: int | None) -> str:
    """One line when a run has ended; of a search it is not known how many there will be."""
    state = "" if run.verdict.is_valid else "  INVALID: " + "; ".join(run.verdict.faults)
    return (
        f"[{run.order + 1}{f'/{num_runs}' if num_runs else ''}] {run.label}, repeat {run.repeat}: "
        f"{run.summary.output_tps:,.0f} tok/s, {run.summary.num_ok}/{run.summary.num_requests} answered{state}"
    )


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
