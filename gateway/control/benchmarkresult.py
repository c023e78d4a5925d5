"""What is shown of a result of `forgegate bench run`. Pure, over its document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway import snapshot as wire
from gateway.control.benchmarkshelf import Level, Run, RunState

Document = Mapping[str, Any]


class NoResult(ValueError):
    """The document is none of a run."""


def with_result(run: Run, document: Document) -> Run:
    """The run, done. Raises NoResult."""
    try:
        levels = tuple(map(_level, document["levels"]))
        return replace(
            run, state=RunState.DONE, detail="", is_valid=bool(document["is_valid"]),
            faults=tuple(map(str, document["faults"])), levels=levels, is_slo_met=document.get("is_slo_met"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as exc:
        raise NoResult(f"no result of a run: {exc!r}") from exc


def best(run: Run) -> Level | None:
    """The load with the most tokens per second; None without one."""
    return max(run.levels, key=lambda level: level.output_tps, default=None)


def words(run: Run) -> str:
    """What came of it, in one line."""
    fastest = best(run)
    if run.state is not RunState.DONE or fastest is None:
        return f"{run.state}: {run.detail}" if run.detail else str(run.state)
    if not run.is_valid:
        return f"void: {'; '.join(run.faults)}"
    slo = "" if run.is_slo_met is not False else f"; {run.body.slo} is shown to hold at no load"
    return f"{fastest.output_tps:,.0f} tok/s at {fastest.load}{slo}"


def measured(runs: Mapping[str, Run]) -> tuple[wire.Measured, ...]:
    """By name, the newest valid result of what answers for it. `runs`: oldest first."""
    newest: dict[str, wire.Measured] = {}
    for run in runs.values():
        fastest = best(run)
        if run.is_valid and run.resolved and fastest is not None and run.ended is not None:
            newest[run.body.model] = wire.Measured(
                name=run.body.model, resolved=run.resolved, output_tps=round(fastest.output_tps, 1), load=fastest.load,
                at=int(run.ended), benchmark=run.id,
            )  # fmt: skip
    return tuple(newest.values())


def _level(level: Document) -> Level:
    rate, pooled = level.get("rate"), level["pooled"]
    streams = "1 stream" if level["concurrency"] == 1 else f"{level['concurrency']} streams"
    # Who opens a loop has waited since the request was due.
    ttft = pooled["ttft_s"] if rate is None else pooled["ttft_user_s"]
    return Level(
        load=streams if rate is None else f"{rate:g} requests/s",
        is_valid=bool(level["is_valid"]),
        num_requests=int(pooled["num_requests"]),
        num_ok=int(pooled["num_ok"]),
        output_tps=float(level["output_tps"]["median"]),
        ttft_p50_s=_percentile(ttft, "p50"),
        ttft_p99_s=_percentile(ttft, "p99"),
        tpot_p50_s=_percentile(pooled["tpot_s"], "p50"),
        tpot_p99_s=_percentile(pooled["tpot_s"], "p99"),
    )


def _percentile(of: Document | None, which: str) -> float | None:
    return None if of is None or of[which] is None else float(of[which])
