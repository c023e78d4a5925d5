"""Events of a run in words. Empty where an event is not worth a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.plan import size_words
from finetune.run.pace import Pace

Event = Mapping[str, Any]
_REPEATED = ("train", "evaluate")
"""Stages that follow each other for as long as the run lasts."""
_LEFT = {
    "num_dropped": "dropped as too long", "num_truncated": "truncated", "num_masked_out": "left out without a trained token",
}  # fmt: skip


def words(event: Event) -> str:
    """One line, or a few."""
    match event["event"]:
        case "stage" if event["name"] not in _REPEATED:
            return f"{event['name']}: {event['text']}" if event.get("text") else str(event["name"])
        case "data":
            return "\n".join([_data_words(event), *(f"note: {note}" for note in event.get("notes") or ())])
        case "start":
            return "\n".join([_start_words(event), *(f"note: {note}" for note in event.get("notes") or ())])
        case "eval":
            return f"  step {event['step']}: evaluation loss {_loss(event.get('loss'))}"
        case "saved":
            return f"  step {event['step']}: checkpoint saved"
        case "guard":
            return f"{'error' if event.get('is_fatal') else 'warning'}: {event['message']}"
    return ""


def step_words(event: Event, pace: Pace) -> str:
    """`loss 1.234, 5,123 tok/s, 7.8 of 24.0 GiB, 12 min left`"""
    parts = [f"loss {_loss(event.get('loss'))}"]
    if pace.tok_s is not None:
        parts.append(f"{pace.tok_s:,.0f} tok/s")
    if event.get("peak_bytes"):
        total = f" of {size_words(event['total_bytes'])}" if event.get("total_bytes") else ""
        parts.append(f"memory {size_words(event['peak_bytes'])}{total}")
    if pace.left_s is not None:
        parts.append(f"{duration(pace.left_s)} left")
    return ", ".join(parts)


def progress_words(event: Event) -> str:
    """`tokenise: 1,200 of 5,000`"""
    line = f"{event['stage']}: {event['text']}" if event.get("text") else str(event["stage"])
    if not event.get("total") and not event["done"]:
        return line
    total = f" of {event['total']:,}" if event.get("total") else ""
    return f"{line}: {event['done']:,}{total}"


def duration(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`, `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _data_words(event: Event) -> str:
    parts = [f"{event['num_rows']:,} rows"]
    for name, what in _LEFT.items():
        if event.get(name):
            parts.append(f"{event[name]:,} {what}")
    if event.get("num_packs"):
        parts.append(f"packed into {event['num_packs']:,}")
    parts.append(f"{event['num_tokens']:,} tokens, {event['num_trained_tokens']:,} of them trained")
    if event.get("num_eval_rows"):
        parts.append(f"{event['num_eval_rows']:,} rows for evaluation")
    return f"data: {'; '.join(parts)}"


def _start_words(event: Event) -> str:
    share = event["num_trainable"] / max(1, event["num_parameters"])
    resumed = f", from step {event['resumed_from']}" if event.get("resumed_from") else ""
    return (
        f"training {event['num_steps']:,} steps{resumed} on {event['device']} in {event['dtype']}, {event['attention']} attention: "
        f"{event['num_trainable']:,} of {event['num_parameters']:,} parameters ({100 * share:.2f} %)"
    )


def _loss(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
