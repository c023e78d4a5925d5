"""What follows an out of memory: the same run, one step lower. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backends.plan import size_words
from finetune.plan.ladder import Step, with_4bit
from finetune.recipe.recipe import Recipe
from finetune.run.ending import OOM, Outcome
from finetune.run.sameness import differences

_SHOWN_BYTES = 1 << 20
BEFORE_BATCHES = ("start", "load", "read", "pack")
"""Stages of the training process."""
NextStep = Callable[[Recipe], Step | None]


@dataclass(frozen=True, slots=True)
class Retry:
    recipe: Recipe
    words: str
    """What is changed."""
    can_resume: bool
    """Whether checkpoints of the attempt before it continue: not where the optimizer, the weights' form or the rows change."""


def is_early(outcome: Outcome) -> bool:
    """Whether memory ran out before a batch was computed: then only smaller weights help, not smaller batches."""
    return str(outcome.event.get("stage", "")) in BEFORE_BATCHES


def retry_of(outcome: Outcome, recipe: Recipe, next_step: NextStep) -> Retry | None:
    """None where nothing is left to try, or where it did not end for want of memory."""
    step = step_after(outcome, recipe, next_step) if outcome.status == OOM else None
    return None if step is None else Retry(step.recipe, step.words, not differences(recipe, step.recipe))


def step_after(outcome: Outcome, recipe: Recipe, next_step: NextStep) -> Step | None:
    return with_4bit(recipe) if is_early(outcome) else next_step(recipe)


def oom_words(outcome: Outcome, predicted: Mapping[str, int], step: Step | None, can_be_shorter: bool) -> str:
    """One message: what happened, memory by part, the next step. `predicted` stands in where the process could not say."""
    stage = str(outcome.event.get("stage", ""))
    lines = [f"out of memory{f' ({stage})' if stage else ''}{f': {outcome.message}' if outcome.message else ''}"]
    measured = {} if is_early(outcome) else outcome.event.get("memory") or {}
    if parts := _parts_words(measured or predicted):
        lines.append(f"{'memory' if measured else 'foreseen'} by part: {parts}")
    lines.append(_next_words(step, can_be_shorter and not is_early(outcome)))
    return "\n".join(lines)


def _next_words(step: Step | None, can_be_shorter: bool) -> str:
    if step is not None:
        return f"next step: {step.words}; --on-oom retry takes it"
    if can_be_shorter:
        return "next step: a shorter sequence_len, which changes what is learned: --allow-shorter lets --on-oom retry take it"
    return "nothing is left to save: a smaller base model, or a device with more memory"


def _parts_words(parts: Mapping[str, int]) -> str:
    known = sorted(((size, name) for name, size in parts.items() if size >= _SHOWN_BYTES), reverse=True)
    return ", ".join(f"{name} {size_words(size)}" for size, name in known)
