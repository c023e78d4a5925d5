"""Packs to what a model takes, padded or flat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from finetune.training.packing import epoch_order
from finetune.training.rows import TokenRows

IGNORED = -100
"""A label that no loss counts."""


@dataclass(frozen=True, slots=True)
class Packs:
    """Sequences: places of rows in `rows`, one or several each."""

    rows: TokenRows
    packs: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.packs)

    def lengths(self) -> list[int]:
        """In tokens."""
        lengths = self.rows.lengths
        return [sum(lengths[place] for place in pack) for pack in self.packs]

    def sequence(self, number: int) -> Sequence3:
        """Ids, labels and positions of a pack's tokens; positions begin anew with each row, which is what keeps rows apart."""
        parts = [self.rows.row(place) for place in self.packs[number]]
        ids = np.concatenate([ids for ids, _ in parts])
        labels = np.concatenate([np.where(is_trained, ids, IGNORED) for ids, is_trained in parts])
        positions = np.concatenate([np.arange(len(ids)) for ids, _ in parts])
        return ids, labels, positions

    def row_numbers(self, number: int) -> list[int]:
        return [int(self.rows.numbers[place]) for place in self.packs[number]]


Sequence3 = tuple[Any, Any, Any]


class Collator:
    """Batches of packs. Labels come from the loss masks, never from a token's id: padding may share its id with the end of a turn.

    `is_flat`: all rows of a batch in one sequence without padding, which attention by lengths (varlen, FlashAttention) wants; else
    (packs, longest pack), where each pad is a sequence of its own, after which nothing comes.
    """

    def __init__(self, sets: Sequence[Packs], pad_id: int, is_flat: bool) -> None:
        """Packs are numbered through all sets."""
        self._numbered = [(packs, number) for packs in sets for number in range(len(packs))]
        self._pad_id, self._is_flat = pad_id, is_flat

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Tensors of shape (sequences, tokens); `rows`, `num_tokens` and `num_trained` are for whoever tells of the step."""
        found = [self._numbered[item["pack"]] for item in items]
        sequences = [packs.sequence(number) for packs, number in found]
        columns = zip(*sequences, strict=True)
        put = _flat if self._is_flat else _padded
        ids, labels, positions = (
            put(values, filler) for values, filler in zip(columns, (self._pad_id, IGNORED, 0), strict=True)
        )
        batch = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return {
            **batch,
            **(_lengths(positions) if self._is_flat else {}),
            "rows": [row for packs, number in found for row in packs.row_numbers(number)],
            "num_tokens": sum(len(sequence[0]) for sequence in sequences),
            "num_trained": int((labels != IGNORED).sum()),
        }


def _padded(values: Sequence[Any], filler: int) -> torch.Tensor:
    table = np.full((len(values), max(map(len, values))), filler, np.int64)
    for line, row in zip(table, values, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(table)


def _flat(values: Sequence[Any], filler: int) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(values).astype(np.int64))[None]


def _lengths(positions: torch.Tensor) -> dict[str, Any]:
    """Where rows begin, as FlashAttention takes it: int32 of shape (rows + 1)."""
    starts = torch.nonzero(positions[0] == 0)[:, 0]
    bounds = torch.cat([starts, torch.tensor([positions.shape[1]])]).to(torch.int32)
    longest = int(bounds.diff().max())
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}


class EpochOrder(Sampler[int]):
    """Packs in the order of the epoch that `epoch` is set to before it begins."""

    def __init__(self, num_packs: int, seed: int) -> None:
        self._num_packs, self._seed = num_packs, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._num_packs

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._num_packs, self._seed, self.epoch))
