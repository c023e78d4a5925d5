"""The end of a run, told in a few lines: what came out, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.plan import size_words
from finetune.publish import CANDIDATE
from finetune.recipe.recipe import Recipe
from finetune.run.folder import RunFolder
from finetune.run.metrics import Metrics
from finetune.run.record import Record
from finetune.run.viewwords import duration

WIDTH = 10
EDGE = 10
"""Steps whose mean is the loss at the start, and at the end."""


def summary(folder: RunFolder, record: Record, recipe: Recipe, has_curves: bool) -> str:
    """Of a run that is done."""
    metrics = Metrics.read(folder.metrics)
    rows = [("trained", _trained_words(record, metrics)), ("memory", _memory_words(record))]
    downs = [each.step_down for each in record.attempts if each.step_down]
    if downs:
        batch = f"{recipe.steps.effective_batch_size} ({recipe.steps.micro_batch_size} x {recipe.steps.gradient_accumulation_steps})"
        rows.append(("retries", f"{len(downs)} after out of memory: {'; '.join(downs)}; effective batch still {batch}"))
    if record.findings:
        rows.append(
            ("warnings", f"{len(record.findings)}: {', '.join(sorted({each['name'] for each in record.findings}))}")
        )
    rows.append(("adapter", str(folder.adapter)))
    if record.exported:
        rows.append(("export", f"{folder.export}, version {record.exported['digest'][:12]}"))
    if has_curves:
        rows.append(("curves", str(folder.curves)))
    rows += [("record", str(folder.record)), ("next", _next_words(folder, record))]
    return "\n".join(f"{name:<{WIDTH}}{words}" for name, words in rows if words)


def _trained_words(record: Record, metrics: Metrics) -> str:
    result = record.result
    losses = metrics.series("loss")[1]
    parts = [f"{result['num_steps']:,} steps in {duration(sum(each.seconds for each in record.attempts))}"]
    if losses:
        width = max(1, min(EDGE, len(losses) // 3))
        parts.append(f"loss {_mean(losses[:width]):.3f} to {_mean(losses[-width:]):.3f}")
    if best := metrics.best_eval:
        parts.append(f"best evaluation loss {best['loss']:.3f} at step {best['step']}")
    if metrics.tok_s:
        parts.append(f"{metrics.tok_s:,.0f} tok/s")
    early = ", ended early: the evaluation loss no longer fell" if result.get("reason") == "early_stop" else ""
    return ", ".join(parts) + early


def _memory_words(record: Record) -> str:
    last = record.attempt
    if last.peak_bytes is None:
        return ""
    foreseen = f", {size_words(last.predicted_bytes)} was foreseen" if last.predicted_bytes else ""
    return f"{size_words(last.peak_bytes)} at its peak{foreseen}"


def _next_words(folder: RunFolder, record: Record) -> str:
    if record.published:
        return _after_publication(record.published, folder)
    if record.exported:
        return f"forgegate adapters publish {folder.export} --name NAME"
    return f"forgegate export {folder.path} --out DIR"


def _after_publication(told: Mapping[str, Any], folder: RunFolder) -> str:
    name = told.get("name", "NAME")
    if told.get("event") == "refused":
        return f"what the gate saw: {folder.evaluation}; change the recipe and train into another folder (--out DIR)"
    if told.get("gate") == CANDIDATE:
        return f"forgegate gate --alias {name} --candidate {told['version']} --run {folder.path}"
    return f"ask it: forgegate chat --model {name}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
