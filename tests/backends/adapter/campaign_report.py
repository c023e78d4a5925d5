"""The table of a campaign of proofs, as Markdown for people and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backends.adapter import proof

FAULTS = (
    "not applied", "wrong adapter", "wrong adapter, others known", "wrong adapter, a relative", "wrong adapter, a relative, others known",
    "scale x0.5", "scale x2", "one layer zeroed", "q/k not permuted",
)  # fmt: skip
FAINT = ("faint, sound", "faint, not applied", "faint, scale x2", "faint, one layer zeroed")
STATES = ("failed", "weak", "indistinguishable", "proven")
PACKAGES = ("llama-cpp-python", "torch", "transformers", "peft")


def write_report(out: Path, found: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any]) -> None:
    """adapter-proof.json and adapter-proof.md into the folder `out`; `found`: tallies by base and case."""
    made_by = {name: version(name) for name in PACKAGES} | {"machine": platform.machine()}
    levels = {level: {case: summary(tally) for case, tally in tallies.items()} for level, tallies in found.items()}
    content = {"run": dict(run), "made_by": made_by, "miss": proof.MISS, "alarm": proof.ALARM, "bases": levels}
    out.mkdir(parents=True, exist_ok=True)
    (out / "adapter-proof.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "adapter-proof.md").write_text(_markdown(content), encoding="utf-8")


def summary(tally: Any) -> dict[str, Any]:
    return {
        "loads": tally.num_loads,
        **{state: tally.states.get(state, 0) for state in STATES},
        "named": tally.num_named,
        "tokens_median": statistics.median(tally.num_tokens),
        "tokens_p90": sorted(tally.num_tokens)[int(0.9 * (tally.num_loads - 1))],
        "judge_ms_median": round(statistics.median(tally.judge_ms), 2),
        "projection_min": round(min(tally.projections), 4),
        "projection_max": round(max(tally.projections), 4),
        "weak_against": dict(sorted(tally.weak_against.items())),
    }


def _markdown(content: Mapping[str, Any]) -> str:
    bases = content["bases"]
    lines = [*_head(content), "", *_sound(bases), "", *_faulty(bases), "", *_faint(bases), "", *_limits(content)]
    return "\n".join(lines) + "\n"


def _head(content: Mapping[str, Any]) -> list[str]:
    bases = content["bases"]
    sound = [cases["sound"] for cases in bases.values()]
    faulty = [(case, row) for cases in bases.values() for case, row in cases.items() if case in FAULTS]
    apart = [row for case, row in faulty if "relative" not in case]
    unknown = [row for case, row in faulty if case == "wrong adapter, a relative"]
    known = [row for case, row in faulty if case == "wrong adapter, a relative, others known"]
    return [
        "# Golden proof: does the engine serve the adapter that it is asked for?", "",
        f"- Sound loads: {_sum(sound, 'loads'):,}; called failed: **{_sum(sound, 'failed')}**; weak: {_sum(sound, 'weak')}; "
        f"indistinguishable from a relative or another: {_sum(sound, 'indistinguishable')}.",
        f"- Faulty loads: {_sum(apart, 'loads'):,}; called proven: **{_sum(apart, 'proven')}**; failed: {_sum(apart, 'failed'):,}, of "
        f"these {_sum(apart, 'named'):,} name what is served; weak: {_sum(apart, 'weak')}.",
        f"- A near relative served instead, whose golden file the proof has: {_sum(known, 'loads')} loads; called proven: "
        f"**{_sum(known, 'proven')}**. Without that file: {_sum(unknown, 'loads')} loads; called proven: {_sum(unknown, 'proven')}. "
        "See below.",
    ]  # fmt: skip


def _sum(rows: list[dict[str, Any]], key: str) -> int:
    return int(sum(row[key] for row in rows))


def _sound(bases: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Sound loads", "",
        "| base | loads | proven | weak | indistinguishable | failed | projection | tokens scored, median / p90 | verdict, ms |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]  # fmt: skip
    for level, cases in bases.items():
        row = cases["sound"]
        lines.append(
            f"| {level} | {row['loads']} | {row['proven']} | {row['weak']} | {row['indistinguishable']} | {row['failed']} | "
            f"{row['projection_min']:.3f} to {row['projection_max']:.3f} | {row['tokens_median']:.0f} / {row['tokens_p90']:.0f} | "
            f"{row['judge_ms_median']:.1f} |"
        )
    weak = {
        f"{level}: {name} ({count})"
        for level, cases in bases.items()
        for name, count in cases["sound"]["weak_against"].items()
    }
    return [*lines, "", f"Weak, or indistinguishable, against: {', '.join(sorted(weak)) or 'nothing'}."]


def _faulty(bases: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Faulty loads", "", "failed / weak / indistinguishable / **proven** of all; in brackets: failures that name what is served.", "",
        "| fault | " + " | ".join(bases) + " |", "|---|" + "---|" * len(bases),
    ]  # fmt: skip
    return lines + [
        f"| {case} | " + " | ".join(_cell(cases.get(case)) for cases in bases.values()) + " |" for case in FAULTS
    ]


def _faint(bases: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Faint adapters", "",
        "A signing adapter at 1/20 of its strength, which changes what is said by hundredths of a nat: what is too near to be told apart "
        "is called weak.", "",
        "| load | " + " | ".join(bases) + " |", "|---|" + "---|" * len(bases),
    ]  # fmt: skip
    return lines + [
        f"| {case} | " + " | ".join(_cell(cases.get(case)) for cases in bases.values()) + " |" for case in FAINT
    ]


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['failed']} / {row['weak']} / {row['indistinguishable']} / **{row['proven']}** of {row['loads']} ({row['named']})"


def _limits(content: Mapping[str, Any]) -> list[str]:
    run, made_by = content["run"], content["made_by"]
    versions = ", ".join(f"{name} {value}" for name, value in made_by.items())
    return [
        "## What was varied, and what was not", "",
        f"- {run['launches']} launches of each base, seed {run['seed']}, {run['elapsed_s']:,} s in all; {versions}.",
        *_LIMITS,
        f"- Margins are for a fault called proven in at most {content['miss']:g}, a sound adapter called failed in at most "
        f"{content['alarm']:g} of the loads.",
        "", "Again: `python -m tests.backends.adapter.campaign`.",
    ]  # fmt: skip


_LIMITS = (
    "- A launch draws: 1 or 2 threads, micro-batches of 32 to 512 tokens, 1 to 8 texts in a batch, flash attention or not. A load draws: "
    "the adapter, all or three quarters and more of the probe texts in any order, the batches that they fall into, and whether the proof "
    "knows the other adapters.",
    "- Adapters: the three signing ones; each with noise of 0.3 of its own size on lora_B; each at 0.7 of its strength with noise of 0.1. "
    "The last two kinds are not trained. `wrong adapter` serves another signing adapter; `a relative` serves the noisy one for its "
    "original.",
    "- A relative that the proof does not know is told from its original only by what is left unexplained, which may be a fifth of the "
    "effect: less than that passes. It is told where its own golden file is known.",
    "- The noise of one base is much the same in every load: what differs are adapters, texts and rounding. One small model, CPU only; "
    "other models and engines need a run of their own.",
)
