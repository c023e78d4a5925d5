"""What an attempt trains on, batch by batch, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from finetune.recipe.recipe import Recipe
from finetune.training.batches import Collator, EpochOrder, Packs
from finetune.training.packing import epoch_order, num_padding, pack
from finetune.training.reading import Prepared
from finetune.training.rows import TokenRows
from finetune.training.schedule import Schedule, schedule_of
from finetune.training.tally import take


@dataclass(frozen=True, slots=True)
class Feed:
    recipe: Recipe
    prepared: Prepared
    train: Packs
    held_out: Packs | None
    schedule: Schedule
    order: EpochOrder
    num_processes: int

    @classmethod
    def of(cls, recipe: Recipe, prepared: Prepared, num_processes: int) -> Feed:
        train = Packs(prepared.train, packs_of(recipe, prepared.train))
        rows = prepared.held_out
        held_out = None if rows is None else Packs(rows, packs_of(recipe, rows))
        schedule = schedule_of(recipe, len(train), num_processes, held_out is not None)
        return cls(recipe, prepared, train, held_out, schedule, EpochOrder(len(train), recipe.seed), num_processes)

    def datasets(self) -> tuple[Any, Any]:
        """Numbers of packs, for training and evaluation; a collator makes batches of them. Evaluation's are behind those of training."""
        train = Dataset.from_dict({"pack": list(range(len(self.train)))})
        if self.held_out is None:
            return train, None
        first = len(self.train)
        return train, Dataset.from_dict({"pack": list(range(first, first + len(self.held_out)))})

    def collator(self, pad_id: int, is_flat: bool) -> Collator:
        return Collator([self.train] if self.held_out is None else [self.train, self.held_out], pad_id, is_flat)

    def digest(self) -> str:
        """Of what a step is made of. The micro batch may change, as long as the whole batch is the same."""
        batch = self.recipe.steps.effective_batch_size * self.num_processes
        content = hashlib.sha256(
            json.dumps([self.recipe.seed, batch, [list(each) for each in self.train.packs]]).encode()
        )
        content.update(self.prepared.train.digest().encode())
        return content.hexdigest()

    def facts(self, is_flat: bool) -> dict[str, Any]:
        """As the `data` event tells them. Padding is that of the first epoch."""
        rows, counts = self.prepared.train, self.prepared.counts
        order, lengths = epoch_order(len(self.train), self.recipe.seed, 0), self.train.lengths()
        batch = self.recipe.steps.micro_batch_size
        return {
            "num_rows": len(rows), "num_general": self.prepared.num_general, "num_dropped": counts.num_dropped,
            "num_truncated": counts.by_kind["truncated"], "num_masked_out": counts.by_kind["masked_out"],
            "num_packs": len(self.train), "num_tokens": rows.num_tokens, "num_trained_tokens": rows.num_trained,
            "num_padding": 0 if is_flat else num_padding(order, lengths, batch),
            "num_eval_rows": 0 if self.held_out is None else len(self.held_out.rows),
            "notes": list(counts.notes(self.recipe.data.max_length)),
        }  # fmt: skip


def packs_of(recipe: Recipe, rows: TokenRows) -> Sequence[Sequence[int]]:
    if recipe.memory.packing:
        return pack(rows.lengths, recipe.data.max_length, recipe.seed)
    return [[place] for place in range(len(rows))]


def batches_of(recipe: Recipe, rows: TokenRows, pad_id: int, is_flat: bool) -> list[dict[str, Any]]:
    """Of rows that are not trained, as large as micro batches but without padding: what a model takes, with `labels`."""
    packs, size = Packs(rows, packs_of(recipe, rows)), recipe.steps.micro_batch_size if is_flat else 1
    collate = Collator([packs], pad_id, is_flat)
    numbers = range(len(packs))
    batches = [collate([{"pack": number} for number in numbers[start : start + size]]) for start in numbers[::size]]
    for batch in batches:
        take(batch)
    return batches
