"""An evaluation as lines for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from finetune.dataset.text import shown
from finetune.evaluation.compare import Compared, compared
from finetune.evaluation.result import Evaluation, Model

_HEAD = ("task", "metric", "items", "clusters", "live", "candidate", "difference", "95 % interval", "")
_NUM_SHOWN = 3


def lines(evaluation: Evaluation) -> Iterator[str]:
    """For a terminal."""
    live, *others = evaluation.models
    if not others:
        yield from _alone(evaluation, live)
    for model in others:
        yield f"{model.resolved} (candidate) against {live.resolved} (live)"
        yield from _table(evaluation, model)
    yield from notes(evaluation)


def notes(evaluation: Evaluation) -> Iterator[str]:
    """What is said beside the scores: a line for each."""
    for change in evaluation.drift["changes"]:
        yield f"drift: {change['model']}, {change['set']}: {change['words']}"
    yield from _greetings(evaluation)
    yield from _perplexity(evaluation)
    yield from _judged(evaluation)
    for model, row in zip(evaluation.models, evaluation.speed["by_model"], strict=True):
        yield f"speed: {model.asked}: {speed_words(row, evaluation.speed['at_a_time'])}"
    for note in evaluation.environment["notes"]:
        yield f"note: {note}"


def markdown(evaluation: Evaluation) -> str:
    """The same as a document."""
    live, *others = evaluation.models
    parts = ["# Evaluation", "", f"Suite `{evaluation.suite['digest'][:19]}`, {evaluation.environment['at']}.", ""]
    if not others:
        parts += ["| task | metric | items | score |", "|---|---|---|---|"]
        parts += [
            f"| {name} | {one.metric} | {len(one.items)} | {_percent(_mean(one.by_model[0]))} |"
            for name, one in evaluation.scores.items()
        ]
    for model in others:
        parts += [
            f"## {model.resolved} against {live.resolved}",
            "",
            f"| {' | '.join(_HEAD)} |",
            "|---" * len(_HEAD) + "|",
        ]
        parts += [f"| {' | '.join(_cells(row))} |" for row in compared(evaluation, model.asked)]
        parts += [""]
    parts += ["", *(f"  - {line.strip()}" if line.startswith(" ") else f"- {line}" for line in notes(evaluation))]
    return "\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


def _alone(evaluation: Evaluation, model: Model) -> Iterator[str]:
    yield model.resolved
    width = max(map(len, evaluation.scores))
    for name, one in evaluation.scores.items():
        yield f"  {name:<{width}}  {_percent(_mean(one.by_model[0])):>7}  {one.metric} of {len(one.items)} items"


def _table(evaluation: Evaluation, model: Model) -> Iterator[str]:
    rows = [_HEAD, *(_cells(row) for row in compared(evaluation, model.asked))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    for row in rows:
        cells = [
            cell.ljust(width) if place in (0, 1, 8) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _cells(row: Compared) -> tuple[str, ...]:
    return (
        row.name, row.metric, str(row.num_items), str(row.num_clusters), _percent(row.live), _percent(row.candidate),
        f"{row.difference:+.1f}", f"{row.lower:+.1f} to {row.upper:+.1f}", row.words,
    )  # fmt: skip


def _greetings(evaluation: Evaluation) -> Iterator[str]:
    told = evaluation.greetings
    for model, row in zip(evaluation.models, told["by_model"], strict=True):
        if not row["num_styled"]:
            continue
        word = "FAILS: " if model.asked in told["failed"] else ""
        yield f"greetings: {word}{model.asked} answers {row['num_styled']} of {told['num']} greetings in the style of the task"
        for one in row["styled"][:_NUM_SHOWN]:
            yield f"  {one['question']} -> {shown(one['answer'], 80)} ({one['why']})"
    if not any(row["num_styled"] for row in told["by_model"]):
        yield f"greetings: none of {told['num']} is answered in the style of the task"


def _perplexity(evaluation: Evaluation) -> Iterator[str]:
    told = evaluation.perplexity
    if told is not None:
        by_model = ", ".join(
            f"{model.asked} {value:,.2f}" for model, value in zip(evaluation.models, told["by_model"], strict=True)
        )
        yield f"perplexity of {told['num_items']} expected answers: {by_model}"


def _judged(evaluation: Evaluation) -> Iterator[str]:
    told = evaluation.judge
    if told is None:
        return
    for model, row in zip(evaluation.models[1:], told["by_model"][1:], strict=True):
        yield (
            f"judge {told['model']}: {model.asked} wins {row['wins']}, loses {row['losses']}, ties {row['ties']} of {row['num_items']} "
            f"(win rate {_percent(row['win_rate'])}{_interval(row)}; {row['inconsistent']} turned with the order, {row['unreadable']} "
            "could not be read)"
        )


def _interval(row: dict[str, Any]) -> str:
    return f", 95 % interval {_percent(row['lower'])} to {_percent(row['upper'])}"


def speed_words(row: dict[str, Any], at_a_time: int) -> str:
    """Of one model's answers."""
    if row["latency_ms"] is None:
        return "nothing was timed"
    parts = [
        f"{words} {row[name]['p50']:.1f} / {row[name]['p95']:.1f} ms"
        for name, words in (("ttft_ms", "first token"), ("tpot_ms", "each further"), ("latency_ms", "whole answer"))
        if row[name] is not None
    ]
    throughput = f", {row['tokens_per_s']:.0f} tokens/s" if row["tokens_per_s"] else ""
    return f"{', '.join(parts)} (p50 / p95){throughput}, {at_a_time} at a time"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
