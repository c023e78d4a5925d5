"""Runs of the gateway's benchmarks as the command line shows them. Over what the admin API answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gateway.table import print_table

Run = Mapping[str, Any]
_HEADS = ("load", "answered", "output tok/s", "ttft ms p50 / p99", "tpot ms p50 / p99")


def headline(run: Run) -> str:
    """How far it is, or what came of it, in one line."""
    if run["state"] == "running":
        part = f"{run['num_done']} of {run['num_parts']}" if run["num_parts"] else ""
        return ": ".join(filter(None, ("running", part, run["detail"])))
    if run["state"] != "done" or not run["levels"]:
        return ": ".join(filter(None, (run["state"], run["detail"])))
    if not run["is_valid"]:
        return f"void: {run['faults'][0]}" + (f" (and {len(run['faults']) - 1} more)" if run["faults"][1:] else "")
    best = max(run["levels"], key=lambda level: level["output_tps"])
    return f"{best['output_tps']:,.0f} tok/s at {best['load']}{_promise(run)}"


def row(run: Run) -> tuple[str, ...]:
    """Of a list: benchmark, model, began, by, what."""
    return run["id"], run["model"], _time(run["at"]), run["who"], headline(run)


def show_run(run: Run) -> None:
    """Where it stands, its loads, and why they may not be used."""
    resolved = f" ({run['resolved']})" if run["resolved"] else ""
    took = f", took {run['ended'] - run['at']:,.0f} s" if run["ended"] is not None else ""
    print(f"benchmark {run['id']} of {run['model']}{resolved}, {_time(run['at'])}{took}, by {run['who']}")
    print(headline(run))
    if run["user_share"]:
        print(f"users took {run['user_share']:.0%} of the busiest engine when it began")
    if run["levels"]:
        print()
        print_table(_HEADS, [_level_row(level) for level in run["levels"]])
        print()
    for fault in run["faults"]:
        print(f"VOID {fault}")


def _level_row(level: Run) -> tuple[str, ...]:
    return (
        level["load"] if level["is_valid"] else f"{level['load']} (void)",
        f"{level['num_ok']}/{level['num_requests']}",
        f"{level['output_tps']:,.1f}",
        _pair(level, "ttft"),
        _pair(level, "tpot"),
    )


def _pair(level: Run, name: str) -> str:
    """`-` where it is not defined, or there were too few requests."""
    found = (level[f"{name}_{which}_s"] for which in ("p50", "p99"))
    return " / ".join("-" if seconds is None else f"{seconds * 1e3:,.1f}" for seconds in found)


def _promise(run: Run) -> str:
    if run["is_slo_met"] is None:
        return ""
    return f"; {run['asked']['slo']} is shown to hold at {'a load' if run['is_slo_met'] else 'no load'}"


def _time(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
