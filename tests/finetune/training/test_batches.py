"""Packs to tensors: labels by masks, positions by rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.dataset.tokens import Rendered
from finetune.training.rows import Collector, TokenRows

pytestmark = pytest.mark.torch
PAD = 9


def rows() -> TokenRows:
    """Row 11: 1 2 (2 trained), row 12: 3 9 5 (both last ones), row 13: 7 8."""
    into = Collector()
    into.add(11, Rendered((1, 2), (False, True)))
    into.add(12, Rendered((3, PAD, 5), (True, True, True)))
    into.add(13, Rendered((7, 8), (False, True)))
    return into.rows()


def collate(packs: list[list[int]], is_flat: bool, chosen: list[int]) -> dict[str, Any]:
    from finetune.training.batches import Collator, Packs

    return Collator([Packs(rows(), packs)], PAD, is_flat)([{"pack": number} for number in chosen])


def test_padded() -> None:
    batch = collate([[0, 2], [1]], False, [0, 1])
    assert batch["input_ids"].tolist() == [[1, 2, 7, 8], [3, 9, 5, 9]]
    assert batch["labels"].tolist() == [[-100, 2, -100, 8], [-100, 9, 5, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert (batch["rows"], batch["num_tokens"], batch["num_trained"]) == ([11, 13, 12], 7, 4)
    assert "attention_mask" not in batch


def test_a_token_that_shares_its_id_with_padding_is_trained_all_the_same() -> None:
    assert collate([[1], [0]], False, [0, 1])["labels"].tolist() == [[-100, PAD, 5], [-100, 2, -100]]


def test_flat() -> None:
    batch = collate([[0, 2], [1]], True, [0, 1])
    assert batch["input_ids"].tolist() == [[1, 2, 7, 8, 3, 9, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 0, 1, 2]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 2, 4, 7]
    assert batch["max_length_q"] == batch["max_length_k"] == 3


def test_packs_of_several_sets_are_numbered_through() -> None:
    from finetune.training.batches import Collator, Packs

    collator = Collator([Packs(rows(), [[0]]), Packs(rows(), [[1], [2]])], PAD, False)
    assert collator([{"pack": 2}])["input_ids"].tolist() == [[7, 8]]


def test_the_order_of_an_epoch_is_that_which_is_set() -> None:
    from finetune.training.batches import EpochOrder

    order = EpochOrder(20, 3)
    first = list(order)
    order.epoch = 1
    assert sorted(order) == sorted(first)
    assert list(order) != first
    order.epoch = 0
    assert list(order) == first


def test_what_is_trained_has_a_digest() -> None:
    changed = rows()
    changed.is_trained = np.array([False, True, False, True, False, False, True])
    assert rows().digest() == rows().digest() != changed.digest()
