"""A run as a number of steps, by the rows that there are: packed, ordered and counted by the trainer's own rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune.plan.device import Device
from finetune.plan.facts import DataFacts
from finetune.plan.memory import compute_bytes
from finetune.recipe.recipe import Recipe
from finetune.training.packing import epoch_order, num_padding, pack
from finetune.training.schedule import schedule_of

FLAT = ("", "varlen", "flash_attention_2")
"""Attention by the lengths of rows, which needs no padding; it is the one that is chosen where it can be."""


@dataclass(frozen=True, slots=True)
class Steps:
    units: str
    """`packs` or `rows`: what a micro batch is made of."""
    num_units: int
    num_tokens: int
    """Of one epoch, without padding."""
    num_computed: int
    """Of one epoch, padding included."""
    num_micro_batches: int
    """Of one epoch, on one device."""
    per_epoch: int
    num_steps: int
    num_devices: int = 1

    @property
    def num_epochs(self) -> float:
        """That are really gone through."""
        return self.num_steps / self.per_epoch

    @property
    def tokens_per_micro_batch(self) -> float:
        """Of one device, padding included."""
        return self.num_computed / max(1, self.num_micro_batches * self.num_devices)


def steps_of(recipe: Recipe, facts: DataFacts, device: Device, num_devices: int = 1) -> Steps:
    """`facts` of at least one row."""
    size = recipe.steps.micro_batch_size
    lengths = _pack_lengths(recipe, facts)
    padding = 0
    if not _is_flat(recipe, device):
        padding = num_padding(epoch_order(len(lengths), recipe.seed, 0), lengths, size)
    counted = schedule_of(recipe, len(lengths), num_devices, facts.num_eval_rows > 0)
    return Steps(
        "packs" if recipe.memory.packing else "rows", len(lengths), facts.num_tokens, facts.num_tokens + padding,
        math.ceil(len(lengths) / (size * num_devices)), counted.steps_per_epoch, counted.num_steps, num_devices,
    )  # fmt: skip


def _is_flat(recipe: Recipe, device: Device) -> bool:
    """Kernels that go by lengths compute in 16 bits, on the GPUs that have bfloat16."""
    can_be = device.is_gpu and device.has_bf16 and compute_bytes(recipe, device) == 2
    return can_be and recipe.memory.attention in FLAT


def _pack_lengths(recipe: Recipe, facts: DataFacts) -> list[int]:
    if not recipe.memory.packing:
        return list(facts.lengths)
    packs = pack(facts.lengths, recipe.data.max_length, recipe.seed)
    return [sum(facts.lengths[place] for place in each) for each in packs]
