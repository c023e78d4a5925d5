"""The result of the batch invariance benchmark: JSON, and Markdown with the limits in words and every mismatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.invariance_compare import EPSILON_FACTOR, EPSILON_QUANTILE, MAX_EPSILON, Comparison
from benchmarks.invariance_modes import Run

_VECTOR_FLAGS = ("avx", "fma", "f16c", "amx", "sve", "asimd")
_RULES = (
    "A mismatch is the first token that differs; what follows it answers another text. Margin: the token's log-probability "
    "over that of the next best token that may be drawn, in nats. "
    f"Epsilon: {EPSILON_FACTOR:g} x the {EPSILON_QUANTILE:.1%} quantile of the margin's change over other prompts, at most "
    f"{MAX_EPSILON:g}; each comparison has its own."
)
_ROUNDING = (
    "llama.cpp takes one matrix kernel for a step of one token and another for more, another attention kernel for 64 tokens of a "
    "prompt and more, and adds attention up in the order of the cache's cells. Each of these moves last bits, which "
    "activations rounded to F16 carry on."
)
_INVARIANT = (
    "With batch_invariant the engine never lets llama.cpp change its kernels or the order of its sums. It is for the CPU, and for F32, "
    "F16, BF16 and Q8_0 weights; a change of 0 in the table is exact: the same to the last bit."
)
_SHARED = "Without batch_invariant, answers differ where two tokens are within rounding of each other, and only there."
_LIMITS = (
    "One machine, one build, one number of threads, the formats above: other kernels (GPU, other instruction sets), "
    "quantised weights or caches and larger models round otherwise and need their own run.",
    "Greedy decoding only. A sampled token depends on all probabilities, so it can differ wherever rounding does.",
    "Answers go on past the model's own end (ignore_eos), where it was not trained and margins are small: harder than use. "
    "How many are identical to their own end is told beside.",
    "Tokens are told apart by their text; two tokens with one text (a byte and the character that it is) count as equal.",
)


def invariance_document(
    command: Sequence[str],
    *,
    plan: Mapping[str, Any],
    model: Mapping[str, Any],
    versions: Mapping[str, str],
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    num_everywhere: int,
) -> dict[str, Any]:
    """Everything. `num_everywhere`: prompts that all the engine's own modes answered wholly identically."""
    faults = [fault for run in runs for fault in run.faults] + [f for found in comparisons for f in found.faults]
    return report.document(
        "invariance",
        command,
        plan=dict(plan),
        model=dict(model),
        engine_versions=dict(versions),
        cpu_flags=cpu_flags(),
        is_met=not faults,
        faults=faults,
        num_identical_everywhere=num_everywhere,
        runs=[_run_dict(run, plan["num_places"]) for run in runs],
        comparisons=[_comparison_dict(comparison) for comparison in comparisons],
    )


def cpu_flags() -> list[str]:
    """The vector instruction sets that the processor has: llama.cpp picks its kernels by them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []
    words = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [word for word in words if word.startswith(_VECTOR_FLAGS)]


def markdown(result: Mapping[str, Any]) -> str:
    """For documents."""
    plan, verdict = result["plan"], "met" if result["is_met"] else "MISSED"
    option = {True: " with batch_invariant", False: "", None: ""}[plan["batch_invariant"]]
    lines = [
        f"# Batch invariance: the llama.cpp engine{option}",
        "",
        f"All bounds: **{verdict}**.",
        *_faults(result),
        "",
    ]
    lines += [
        f"{plan['num_prompts']} seeded prompts (and {plan['num_calibration']} others for epsilon), {plan['num_tokens']} greedy "
        f"tokens each. {result['num_identical_everywhere']} prompts have the same answer in every mode of the engine.",
        "",
        "| against alone | wholly identical | wanted | to the model's own end | margin's change p50 / p99.9 / max | epsilon "
        "| mismatches above it |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *map(_row, result["comparisons"]),
        "",
        _RULES,
        "",
        "## Modes",
        "",
        *(f"- **{run['mode']}**: {run['words']}{_signs(run)}." for run in result["runs"]),
        *_reference_words(result),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in (_setting(result), *_reasons(plan), *_LIMITS)),
        "",
        "## Every mismatch",
        "",
        *_mismatches(result),
    ]
    return "\n".join(lines) + "\n"


def _faults(result: Mapping[str, Any]) -> list[str]:
    return ["", *(f"- {fault}" for fault in result["faults"])] if result["faults"] else []


def _row(found: Mapping[str, Any]) -> str:
    changes = " / ".join(_change(found["margin_change"][name]) for name in ("p50", "p999", "max"))
    return (
        f"| {found['name']} | {found['num_identical']} of {found['num_prompts']} ({found['share']:.1%}) "
        f"| {found['min_share']:.0%} | {found['num_identical_to_end']} | {changes} "
        f"| {_change(found['epsilon'])} | {found['num_above']} |"
    )


def _change(nats: float) -> str:
    """0 only where it is exactly that."""
    return f"{nats:.4f}" if nats else "0"


def _signs(run: Mapping[str, Any]) -> str:
    signs = []
    if run["num_neighbours"]:
        signs.append(f"{run['num_neighbours']} neighbours")
    if run["reused_share"]:
        signs.append(f"{run['reused_share']:.0%} of the prompts' tokens were reused")
    if run["num_preempted"]:
        signs.append(f"{run['num_preempted']} preemptions")
    return f" ({', '.join(signs)})" if signs else ""


def _reference_words(result: Mapping[str, Any]) -> list[str]:
    if not any(found["name"] == "transformers" for found in result["comparisons"]):
        return []
    return ["- **transformers**: the same weights in fp32, one prompt at a time, with a KV cache."]


def _setting(result: Mapping[str, Any]) -> str:
    environment, model, plan = result["environment"], result["model"], result["plan"]
    versions = ", ".join(f"{name} {version}" for name, version in result["engine_versions"].items())
    return (
        f"Measured on {environment['cpu']} ({', '.join(result['cpu_flags'])}), {environment['cores']} cores, "
        f"{model['threads'] or 'unknown number of'} engine threads, {model['backend'] or 'unknown'} backend; {versions}; "
        f"model {model['file'] or model['name']} (sha256 {str(model['sha256'])[:12]}, source {model['source_digest']}); "
        f"engine flags: {plan['engine_flags'] or 'none besides those of the mode'}; {environment['date'][:10]}."
    )


def _reasons(plan: Mapping[str, Any]) -> tuple[str, str]:
    return _ROUNDING, _INVARIANT if plan["batch_invariant"] else _SHARED


def _mismatches(result: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {found['name']} | {row['prompt']} ({row['skill']}) | {row['position']} | {_shown(row['token'])} "
        f"| {_shown(row['other_token'])} | {row['margin']:.4f} | {row['other_margin']:.4f} | {'yes' if row['is_beyond_end'] else 'no'} |"
        for found in result["comparisons"]
        for row in found["mismatches"]
    ]
    if not rows:
        return ["None."]
    head = (
        "| mode | prompt | position | token alone | token there | margin alone | margin there | past its end |",
        "|---|---|--:|---|---|--:|--:|---|",
    )
    return [*head, *rows]


def _shown(token: str) -> str:
    return "`" + repr(token)[1:-1].replace("|", "\\|").replace("`", "'") + "`"


def _run_dict(run: Run, num_places: int) -> dict[str, Any]:
    return {
        "mode": run.mode.name,
        "words": run.mode.words.format(streams=run.mode.num_streams(num_places)),
        "num_answers": len(run.answers),
        "duration_s": run.duration_s,
        "num_neighbours": run.num_neighbours,
        "reused_share": run.reused_share,
        "num_preempted": run.num_preempted,
        "faults": run.faults,
    }


def _comparison_dict(found: Comparison) -> dict[str, Any]:
    return {
        "name": found.name,
        "num_prompts": found.num_prompts,
        "num_identical": found.num_identical,
        "share": found.share,
        "num_identical_to_end": found.num_identical_to_end,
        "min_share": found.min_share,
        "epsilon": found.epsilon,
        "margin_change": {"p50": found.change_p50, "p999": found.change_p999, "max": found.change_max},
        "num_above": len(found.above),
        "faults": found.faults,
        "mismatches": [asdict(mismatch) for mismatch in found.mismatches],
    }
