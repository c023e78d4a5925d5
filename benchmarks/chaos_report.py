"""A chaos campaign's result, for programs and for people."""

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.chaos_verdict import Ending

if TYPE_CHECKING:
    from benchmarks.chaos import Campaign, Kill

_MAX_SHOWN = 50


def document(command: Sequence[str], options: argparse.Namespace, campaign: "Campaign") -> dict[str, Any]:
    """JSON-able."""
    outcomes = campaign.outcomes
    kinds = sorted({outcome.kind for outcome in outcomes})
    violations = [outcome for outcome in outcomes if outcome.ending is Ending.VIOLATION]
    return report.document(
        "chaos",
        command,
        plan={
            "seconds": options.seconds, "workers": options.workers, "engines": options.engines, "clients": options.clients,
            "model": options.model, "seed": options.seed,
        },
        is_met=campaign.is_met,
        load_s=round(campaign.load_s, 1),
        requests={
            kind: {ending.value: sum(o.kind == kind and o.ending is ending for o in outcomes) for ending in Ending}
            for kind in kinds
        },
        num_requests=len(outcomes),
        longest_s=round(max((outcome.duration_s for outcome in outcomes), default=0.0), 2),
        details={
            ending.value: dict(Counter(o.detail for o in outcomes if o.ending is ending).most_common())
            for ending in (Ending.ERROR_EVENT, Ending.HTTP_ERROR, Ending.CUT)
        },
        num_counted=campaign.num_counted,
        kills=[asdict(kill) for kill in campaign.kills],
        recovery=[_recovery(campaign.kills, *group) for group in _groups(campaign.kills)],
        checks=[asdict(check) for check in campaign.checks],
        violations=[asdict(violation) for violation in violations[:_MAX_SHOWN]],
        num_violations=len(violations),
    )  # fmt: skip


def markdown(result: dict[str, Any]) -> str:
    """Tables, and what they were measured on."""
    plan, machine = result["plan"], result["environment"]
    endings = [ending.value for ending in Ending]
    lines = [
        f"{plan['workers']} workers and {plan['engines']} llama.cpp engines ({plan['model']}), {plan['clients']} clients, "
        f"{result['load_s']:.0f} s, {result['num_requests']:,} requests, {len(result['kills'])} kills: "
        + ("every request ended in one terminal event." if result["is_met"] else "**violated**."),
        "",
        f"| requests | {' | '.join(endings)} |",
        f"|---|{'--:|' * len(endings)}",
    ]
    rows = {**result["requests"], "all": Counter()}
    for counts in result["requests"].values():
        rows["all"].update(counts)
    for kind, counts in rows.items():
        lines.append(f"| {kind} | {' | '.join(f'{counts[ending]:,}' for ending in endings)} |")
    lines += [
        "",
        "| killed | by | times | clients' connections cut | served again after s, median / max |",
        "|---|---|--:|--:|--:|",
    ]
    for group in result["recovery"]:
        times = f"{group['median_s']} / {group['max_s']}"
        lines.append(f"| {group['role']} | {group['signal']} | {group['num']} | {group['num_connections']} | {times} |")
    lines += ["", "| afterwards | | |", "|---|---|---|"]
    for check in result["checks"]:
        lines.append(f"| {check['name']} | {'yes' if check['is_met'] else '**no**'} | {check['found']} |")
    lines += [f"- violation: {v['kind']}: {v['detail']}" for v in result["violations"]]
    lines += [
        "",
        f"Error events: {_counts(result['details'][Ending.ERROR_EVENT])}. HTTP errors: "
        f"{_counts(result['details'][Ending.HTTP_ERROR])}. The longest request took {result['longest_s']} s.",
        "",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores; forgegate {machine['versions'].get('forgegate', '')}; "
        f"seed {plan['seed']}.",
    ]
    return "\n".join(lines) + "\n"


def _counts(details: dict[str, int]) -> str:
    return ", ".join(f"{num:,} x {detail}" for detail, num in details.items()) or "none"


def _groups(kills: "Sequence[Kill]") -> list[tuple[str, str]]:
    return sorted({(kill.role, kill.signal) for kill in kills})


def _recovery(kills: "Sequence[Kill]", role: str, signal: str) -> dict[str, Any]:
    own = [kill for kill in kills if (kill.role, kill.signal) == (role, signal)]
    times = [kill.back_after_s for kill in own if kill.back_after_s is not None]
    return {
        "role": role,
        "signal": signal,
        "num": len(own),
        "num_connections": sum(kill.num_connections for kill in own),
        "median_s": round(statistics.median(times), 2) if times else None,
        "max_s": max(times, default=None),
    }
