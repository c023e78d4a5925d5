"""Rows into packs: which rows share a sequence. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from random import Random

WINDOW = 4096
"""Rows that are fitted to one another. Packs are filled to more than 99 % with far fewer; memory and time stay bounded."""


def pack(lengths: Sequence[int], capacity: int, seed: int, window: int = WINDOW) -> list[list[int]]:
    """Places of rows, pack by pack: each in exactly one, whole, no pack longer than `capacity` tokens.

    Best fit decreasing (Johnson 1973, at most 11/9 of the fewest packs, and 6/9 of one) within windows of rows that the seed draws.
    ValueError where a row is longer than `capacity`.
    """
    too_long = next((place for place, length in enumerate(lengths) if length > capacity), None)
    if too_long is not None:
        raise ValueError(f"row {too_long} has {lengths[too_long]} tokens, a pack holds {capacity}")
    order = list(range(len(lengths)))
    Random(seed).shuffle(order)
    return [
        each
        for start in range(0, len(order), window)
        for each in _fit(order[start : start + window], lengths, capacity)
    ]


def _fit(places: list[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []
    """(tokens that are free, pack), ascending."""
    for place in sorted(places, key=lambda place: -lengths[place]):  # equal ones stay in the order that was drawn
        found = bisect_left(room, (lengths[place], -1))
        if found == len(room):
            packs.append([])
            free, number = capacity, len(packs) - 1
        else:
            free, number = room.pop(found)
        packs[number].append(place)
        insort(room, (free - lengths[place], number))
    return packs


def epoch_order(num_packs: int, seed: int, epoch: int) -> list[int]:
    """The order in which packs are trained in this epoch: another one in each, the same after every resume."""
    order = list(range(num_packs))
    Random(f"{seed}/{epoch}").shuffle(order)
    return order


def num_padding(order: Sequence[int], lengths: Sequence[int], batch_size: int) -> int:
    """Tokens that fill an epoch's batches up to the longest sequence of each."""
    batches = [
        [lengths[place] for place in order[start : start + batch_size]] for start in range(0, len(order), batch_size)
    ]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)
