"""What would make a run faster that leaves memory unused, without changing what it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from finetune.recipe.recipe import Recipe

WORTH = 1.1
"""Times as fast, below which nothing is said."""


@dataclass(frozen=True, slots=True)
class Faster:
    recipe: Recipe
    times: float
    """As fast as it was."""
    total_bytes: int
    words: str
    """The change."""


def find(
    recipe: Recipe, limit_bytes: int, total: Callable[[Recipe], int], seconds: Callable[[Recipe], float]
) -> Faster | None:
    """The fastest that takes `limit_bytes` at most; None where it is hardly faster. `seconds`: of the whole run."""
    now = seconds(recipe)
    fitting = [change for change in _changes(recipe) if total(change) <= limit_bytes]
    if not fitting:
        return None
    best = min(fitting, key=lambda change: (seconds(change), total(change)))
    times = now / seconds(best)
    return Faster(best, times, total(best), _words(recipe, best)) if times >= WORTH else None


def _changes(recipe: Recipe) -> Iterator[Recipe]:
    """Larger micro batches of the same effective batch, each with and without checkpointing, without which all outputs are kept."""
    steps, effective = recipe.steps, recipe.steps.effective_batch_size
    without = replace(recipe.memory, gradient_checkpointing=False, keep_outputs=())
    memories = [recipe.memory, without] if recipe.memory.gradient_checkpointing else [recipe.memory]
    for size in range(steps.micro_batch_size, effective + 1):
        if effective % size == 0:
            grown = replace(steps, micro_batch_size=size, gradient_accumulation_steps=effective // size)
            for memory in memories:
                yield replace(recipe, steps=grown, memory=memory)


def _words(before: Recipe, after: Recipe) -> str:
    parts = []
    if before.steps != after.steps:
        parts.append(
            f"micro_batch_size: {after.steps.micro_batch_size}, gradient_accumulation_steps: {after.steps.gradient_accumulation_steps}"
        )
    if before.memory != after.memory:
        parts.append("gradient_checkpointing: false")
    if before.memory.keep_outputs != after.memory.keep_outputs:
        parts.append("without keep_outputs")
    return ", ".join(parts)
