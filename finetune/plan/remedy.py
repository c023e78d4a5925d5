"""What would make a run fit that does not: the cheapest single change, else the fewest together, else a larger card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backends.plan import size_words
from finetune.plan import ladder
from finetune.plan.cards import CARDS
from finetune.plan.device import Device, of_card
from finetune.plan.ladder import Step
from finetune.recipe.recipe import Recipe

Total = Callable[[Recipe], int]
"""Bytes that a recipe takes on the device."""


@dataclass(frozen=True, slots=True)
class Remedy:
    changes: tuple[str, ...]
    """Of the recipe; empty where none helps."""
    recipe: Recipe | None
    """With the changes."""
    total_bytes: int
    """What it takes then, or what it takes unchanged."""
    card: str = ""
    """The smallest card known that holds the recipe as it is; empty where none does, and on a processor."""

    @property
    def words(self) -> str:
        """Lines."""
        larger = f"unchanged it fits {self.card}" if self.card else ""
        if not self.changes:
            return f"no change of the recipe makes it fit; {larger or 'take a smaller model'}"
        many = (
            "the cheapest single change that fits"
            if len(self.changes) == 1
            else "no single change fits; together these do"
        )
        return "\n".join(
            [f"{many} ({size_words(self.total_bytes)}):", *(f"  {one}" for one in self.changes), larger]
        ).strip()


def find(recipe: Recipe, device: Device, total: Total, total_on: Callable[[Device], int]) -> Remedy:
    """For a recipe that takes more than `device` has. `total_on`: what it takes, unchanged, on another device."""
    card = _smallest_card(total_on) if device.is_gpu else ""
    for step in _single_changes(recipe, device.is_gpu):
        if total(step.recipe) <= device.free_bytes:
            return Remedy((step.words,), step.recipe, total(step.recipe), card)
    words: tuple[str, ...] = ()
    changed = recipe
    while step_down := ladder.next_step(changed, allow_shorter=True, has_gpu=device.is_gpu):
        words, changed = (*words, step_down.words), step_down.recipe
        if total(changed) <= device.free_bytes:
            return Remedy(words, changed, total(changed), card)
    return Remedy((), None, total(recipe), card)


def _single_changes(recipe: Recipe, has_gpu: bool) -> Iterator[Step]:
    """From what costs nothing to what costs data."""
    yield from _some(ladder.with_chunked_loss(recipe))
    for lower in _down(recipe, ladder.smaller_micro_batch):
        yield ladder.with_micro_batch(recipe, lower.steps.micro_batch_size)
    if has_gpu:
        yield from _some(ladder.with_8bit_optimizer(recipe))
    yield from _some(ladder.with_checkpointing(recipe))
    yield from _some(ladder.with_4bit(recipe))
    for lower in _down(recipe, ladder.shorter):
        yield ladder.with_length(recipe, lower.data.max_length)


def _some(step: Step | None) -> Iterator[Step]:
    if step:
        yield step


def _down(recipe: Recipe, change: Callable[[Recipe], Step | None]) -> Iterator[Recipe]:
    """The same change again and again."""
    while step := change(recipe):
        recipe = step.recipe
        yield recipe


def _smallest_card(total_on: Callable[[Device], int]) -> str:
    cards = sorted(CARDS, key=lambda card: card.memory_mib)
    return next((card.name for card in cards if total_on(of_card(card)) <= of_card(card).free_bytes), "")
