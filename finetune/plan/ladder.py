"""What is given up for memory, one step at a time. Each step keeps the effective batch size, the adapter's rank and its layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetune.recipe.recipe import Memory, Recipe

PAGED_8BIT = "paged_adamw_8bit"
MIN_LENGTH = 256
"""Tokens below which rows are not cut for memory."""


@dataclass(frozen=True, slots=True)
class Step:
    recipe: Recipe
    words: str
    """What it changes, and what that costs."""


def next_step(recipe: Recipe, allow_shorter: bool, has_gpu: bool = True) -> Step | None:
    """The article's list in its order; None where nothing is left. `allow_shorter`: rows may be cut, which changes what is learned."""
    steps = (
        with_nothing_kept(recipe),
        smaller_micro_batch(recipe),
        with_checkpointing(recipe),
        with_chunked_loss(recipe),
        with_8bit_optimizer(recipe) if has_gpu else None,
        with_4bit(recipe),
        shorter(recipe) if allow_shorter else None,
    )
    return next((step for step in steps if step), None)


def with_nothing_kept(recipe: Recipe) -> Step | None:
    if not recipe.memory.keep_outputs:
        return None
    words = f"keep_outputs without {', '.join(recipe.memory.keep_outputs)}: they are computed twice, a little slower"
    return _memory(recipe, replace(recipe.memory, keep_outputs=()), words)


def smaller_micro_batch(recipe: Recipe) -> Step | None:
    """Half of it, or the greatest size below that divides the effective batch."""
    half, effective = recipe.steps.micro_batch_size // 2, recipe.steps.effective_batch_size
    size = next((size for size in range(half, 0, -1) if effective % size == 0), 0)
    return with_micro_batch(recipe, size) if size else None


def with_micro_batch(recipe: Recipe, size: int) -> Step:
    """`size` divides the effective batch."""
    steps, effective = recipe.steps, recipe.steps.effective_batch_size
    accumulated = effective // size
    words = (
        f"micro_batch_size {steps.micro_batch_size} -> {size}, "
        f"gradient_accumulation_steps {steps.gradient_accumulation_steps} -> {accumulated}: "
        f"the same effective batch of {effective}, a little slower"
    )
    return Step(
        replace(recipe, steps=replace(steps, micro_batch_size=size, gradient_accumulation_steps=accumulated)), words
    )


def with_checkpointing(recipe: Recipe) -> Step | None:
    if recipe.memory.gradient_checkpointing:
        return None
    words = "gradient_checkpointing: true: activations are computed twice, about a third slower"
    return _memory(recipe, replace(recipe.memory, gradient_checkpointing=True), words)


def with_chunked_loss(recipe: Recipe) -> Step | None:
    """A loss of the user's own is given all logits: they cannot be chunked."""
    if recipe.memory.chunked_loss or recipe.steps.loss:
        return None
    words = "chunked_loss: true: logits of a few hundred tokens at a time, the same loss"
    return _memory(recipe, replace(recipe.memory, chunked_loss=True), words)


def with_8bit_optimizer(recipe: Recipe) -> Step | None:
    if recipe.steps.optimizer == PAGED_8BIT:
        return None
    words = (
        f"optimizer {recipe.steps.optimizer} -> {PAGED_8BIT}: its states take a quarter, and go to RAM where they must"
    )
    return Step(replace(recipe, steps=replace(recipe.steps, optimizer=PAGED_8BIT)), words)


def with_4bit(recipe: Recipe) -> Step | None:
    """Weights that are trained themselves are not quantised."""
    if recipe.memory.load_in_4bit or recipe.lora is None:
        return None
    words = "load_in_4bit: true: frozen weights in NF4 with double quantisation, a quarter of the size"
    return _memory(recipe, replace(recipe.memory, load_in_4bit=True), words)


def shorter(recipe: Recipe) -> Step | None:
    """Half as long, never below MIN_LENGTH tokens, and not where a row that is too long is to end the run."""
    length = recipe.data.max_length // 2
    return None if length < MIN_LENGTH or recipe.data.too_long == "raise" else with_length(recipe, length)


def with_length(recipe: Recipe, length: int) -> Step:
    what = "cut" if recipe.data.too_long == "truncate" else "left out"
    words = f"sequence_len {recipe.data.max_length} -> {length}: longer rows are {what}"
    return Step(replace(recipe, data=replace(recipe.data, max_length=length)), words)


def _memory(recipe: Recipe, memory: Memory, words: str) -> Step:
    return Step(replace(recipe, memory=memory), words)
