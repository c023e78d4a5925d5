"""Packs hold every row once, whole, within their length."""

from __future__ import annotations

from itertools import chain
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.training.packing import epoch_order, num_padding, pack


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 64), max_size=120),
    seed=st.integers(0, 1000),
    window=st.integers(1, 50),
)
def test_every_row_is_in_exactly_one_pack_and_none_is_too_long(lengths: list[int], seed: int, window: int) -> None:
    packs = pack(lengths, 64, seed, window)
    assert sorted(chain.from_iterable(packs)) == list(range(len(lengths)))
    assert all(0 < sum(lengths[place] for place in each) <= 64 for each in packs)
    assert pack(lengths, 64, seed, window) == packs


def test_packs_are_nearly_full() -> None:
    rng = Random(1)
    lengths = [min(2048, max(16, int(rng.lognormvariate(6.1, 0.6)))) for _ in range(5000)]
    packs = pack(lengths, 2048, 3)
    assert sum(lengths) / (2048 * len(packs)) > 0.99


def test_the_seed_decides_who_is_packed_with_whom() -> None:
    lengths = [10 + place % 7 for place in range(100)]
    assert pack(lengths, 64, 1) != pack(lengths, 64, 2)


def test_a_row_that_fits_in_no_pack_is_named() -> None:
    with pytest.raises(ValueError, match="row 1 has 65 tokens, a pack holds 64"):
        pack([3, 65], 64, 0)


def test_every_epoch_has_an_order_of_its_own_which_is_always_the_same() -> None:
    first, second = epoch_order(50, 7, 0), epoch_order(50, 7, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != epoch_order(50, 8, 1)
    assert epoch_order(50, 7, 1) == second


def test_padding_is_what_batches_lack_to_their_longest() -> None:
    assert num_padding([0, 1, 2], [5, 3, 4], 2) == 2
    assert num_padding([0, 1, 2], [5, 3, 4], 1) == 0
