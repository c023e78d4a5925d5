"""The result of a comparison: JSON, a Markdown table for documents, and ratios against one peer."""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.campaign import Level, Plan
from benchmarks.environment import shown_command
from benchmarks.peer_launch import Peer, Setup
from benchmarks.peer_schema import Schema, violation

BUSY_LIMIT = 0.15
"""Share of all cores that others may use: threads that wait for each other at every layer lose far more than this."""


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One peer with its levels."""

    peer: Peer
    levels: tuple[Level, ...]

    def level(self, concurrency: int) -> Level:
        """The one at this concurrency."""
        return next(level for level in self.levels if level.concurrency == concurrency)


def ratio(level: Level, base: Level) -> tuple[float, float, float]:
    """Median, lowest and highest of output tok/s over the base's, repeat by repeat: neighbours in time are compared."""
    pairs = zip(level.runs, base.runs, strict=True)
    found = [run.summary.output_tps / other.summary.output_tps for run, other in pairs if other.summary.output_tps]
    return (statistics.median(found), min(found), max(found)) if found else (0.0, 0.0, 0.0)


def peers_document(
    command: Sequence[str],
    setup: Setup,
    plan: Plan,
    results: Sequence[PeerResult],
    baseline: str,
    busy: float | None,
    schema: Schema | None = None,
) -> dict[str, Any]:
    """Everything, with the faults of every run on top. `busy`: share of the machine in use before the first run; `schema`:
    what every answer had to follow.
    """
    base = next(result for result in results if result.peer.name == baseline)
    faults = _machine_faults(busy) + [
        f"{result.peer.name}, {level.concurrency} streams, {fault}"
        for result in results
        for level in result.levels
        for fault in [*level.faults, *_differences(level, base), *(_violations(level, schema) if schema else ())]
    ]
    return report.document(
        "peers",
        command,
        model={"file": setup.model.name, "bytes": setup.model.stat().st_size, "sha256": _sha256(setup.model)},
        setup={
            "threads": setup.threads,
            "slots": setup.num_slots,
            "n_ctx_seq": setup.n_ctx_seq,
            "batch": setup.batch,
            "prefix_cache": setup.prefix_cache,
            "kv_unified": setup.kv_unified,
        },
        plan=report.plan_dict(plan),
        baseline=baseline,
        machine_busy=busy,
        is_valid=not faults,
        faults=faults,
        peers=[_peer_dict(result, base) for result in results],
    )


def _machine_faults(busy: float | None) -> list[str]:
    if busy is None or busy < BUSY_LIMIT:
        return []
    return [f"the machine was {busy:.0%} busy while all servers were idle: others took part in every figure"]


def _differences(level: Level, base: PeerResult) -> list[str]:
    """Where this server did not do the same work as the baseline. One that sends no usage tells of no prompt tokens."""
    faults = []
    for run, other in zip(level.runs, base.level(level.concurrency).runs, strict=True):
        for what, ours, theirs in (
            ("output", run.summary.output_tokens, other.summary.output_tokens),
            ("prompt", run.summary.input_tokens, other.summary.input_tokens),
        ):
            if ours and theirs and ours != theirs:
                faults.append(f"repeat {run.repeat}: {ours} {what} tokens, {base.peer.name} had {theirs}")
    return faults


def _violations(level: Level, schema: Schema) -> list[str]:
    """The first answer of each repeat that does not follow the schema."""
    faults = []
    for run in level.runs:
        found = ((record, violation(record.text, schema)) for record in run.load.records if record.is_ok)
        broken = next(((record, why) for record, why in found if why), None)
        if broken:
            faults.append(f"repeat {run.repeat}: answer {broken[0].index} does not follow the schema: {broken[1]}")
    return faults


def markdown(result: dict[str, Any]) -> str:
    """Output tok/s and latency per level and peer, with ratios; INVALID stands where a figure must not be used."""
    environment, setup, plan = result["environment"], result["setup"], result["plan"]
    rows = [
        "| streams | server | output tok/s (median, min-max) | ratio (min-max) | ttft ms p50 / p99 | itl ms p50 / p99 |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    rows += [_row(peer, level) for index in range(len(plan["levels"])) for peer, level in _at(result, index)]
    workload = plan["workload"]
    told = (
        f"{environment['date']}, {environment['cpu']}, {environment['cores']} cores, {setup['threads']} threads each; "
        f"model {result['model']['file']}; prompts of {workload['input_tokens']} {workload['prompt_form']}, "
        f"{workload['output_tokens']} output tokens{_shape(workload)}, {plan['repeats']} repeats, interleaved; prompts "
        f"{'may be' if setup['prefix_cache'] else 'are not'} reused. "
        f"Ratio: output tok/s over {result['baseline']}'s in the same repeat."
    )
    versions = ", ".join(f"{peer['name']} {peer['version']}" for peer in result["peers"])
    notes = [f"{peer['name']}: {peer['note']}." for peer in result["peers"] if peer["note"]]
    faults = [f"INVALID: {fault}" for fault in result["faults"]]
    return "\n".join([*rows, "", told, "", f"Versions: {versions}.", *_paragraph(notes), *_paragraph(faults)]) + "\n"


def _paragraph(lines: Sequence[str]) -> list[str]:
    return ["", *lines] if lines else []


def _shape(workload: dict[str, Any]) -> str:
    return " that follow a JSON schema" if "response_format" in workload["extra"] else ""


def _at(result: dict[str, Any], index: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(peer, peer["levels"][index]) for peer in result["peers"]]


def _row(peer: dict[str, Any], level: dict[str, Any]) -> str:
    tps, against, pooled = level["output_tps"], level["ratio"], level["pooled"]
    speed = f"{tps['median']:,.0f} ({tps['min']:,.0f}-{tps['max']:,.0f})" if level["is_valid"] else "**INVALID**"
    times = f"{against['median']:.2f} ({against['min']:.2f}-{against['max']:.2f})" if level["is_valid"] else "-"
    latencies = f"{_latency(pooled['ttft_s'])} | {_latency(pooled['itl_s'])}"
    return f"| {level['concurrency']} | {peer['name']} | {speed} | {times} | {latencies} |"


def _latency(of: dict[str, Any] | None) -> str:
    if of is None:
        return "-"
    p50, p99 = ("-" if of[name] is None else f"{of[name] * 1e3:,.1f}" for name in ("p50", "p99"))
    return f"{p50} / {p99}"


def _peer_dict(result: PeerResult, base: PeerResult) -> dict[str, Any]:
    return {
        "name": result.peer.name,
        "version": result.peer.version,
        "argv": shown_command(result.peer.launch.argv),
        "body": dict(result.peer.body),
        "note": result.peer.note,
        "levels": [_level_dict(level, base.level(level.concurrency)) for level in result.levels],
    }


def _level_dict(level: Level, base: Level) -> dict[str, Any]:
    median, low, high = ratio(level, base)
    return {**report.level_dict(level), "ratio": {"median": median, "min": low, "max": high}}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
