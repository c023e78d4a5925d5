"""A KV cache for each sequence id, in place of one for all. Pure; stands in for backends.llamacpp.cache.KVCache.

Each sequence id has `max_length` cells of its own, so nobody waits for another's and nothing is ever short. A prefix that
a running sequence holds is copied. A finished sequence stays under its id until the id is wanted.

Ids are given lowest first: llama.cpp computes together only what lies in neighbouring caches.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.effects import Copy, Effect, Remove
from backends.llamacpp.prefixes import Prefixes

Tokens = NDArray[np.int32]
_WORTH_COPYING = 16
"""A shorter prefix is computed again sooner than a whole cache is copied."""


class SeparateCaches:
    """Sequence ids and cached prefixes of one context with a cache for each id."""

    def __init__(self, num_sequence_ids: int, max_length: int, *, keeps_finished: bool) -> None:
        self.num_sequence_ids = num_sequence_ids
        self.num_cells = num_sequence_ids * max_length
        self._max_length = max_length
        self.effects: list[Effect] = []
        self._prefixes = Prefixes(num_sequence_ids, max_length)
        self._keeps_finished = keeps_finished
        self._num_reserved = 0
        self._free_ids = list(range(num_sequence_ids))
        self._running: set[int] = set()
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """As many as there are: no sequence takes another's."""
        return self.num_cells

    @property
    def num_available(self) -> int:
        """As `num_free`."""
        return self.num_cells

    @property
    def num_used(self) -> int:
        """Cells held by running sequences."""
        return int(self._prefixes.length[list(self._running)].sum()) + self._num_reserved

    @property
    def num_counted(self) -> int:
        """As `num_used`: no cell is shared."""
        return self.num_used

    @property
    def num_cached(self) -> int:
        """Cells held by finished sequences."""
        return int(self._prefixes.length[list(self._cached)].sum())

    def next_position(self, sequence_id: int) -> int:
        """The first position that is free in the cache of an id that does not run; a full one is emptied."""
        if self._prefixes.length[sequence_id] == self._max_length:
            del self._cached[sequence_id]
            self._drop(sequence_id)
        return int(self._prefixes.length[sequence_id])

    def acquire(
        self, tokens: Tokens, *, adapter: Hashable = None, reuse: bool = True, source: int = -1
    ) -> tuple[int, int]:
        """A running sequence id for `tokens` under `adapter`, and how many of them are in its cache already.

        The last token is never taken from the cache: its logits are wanted. `source` names a running sequence that is
        known to begin with the same tokens.
        """
        source, length = self._find(tokens[:-1], adapter, reuse, source)
        if source in self._cached and (2 * length >= self._prefixes.length[source] or not self._free_ids):
            self._take_over(source, length)
            return source, length
        if source in self._cached:
            self._cached.move_to_end(source)
        target = self._take_id(source, adapter)
        self._running.add(target)
        self._prefixes.adapter[target] = adapter
        if length < _WORTH_COPYING:
            return target, 0
        self._prefixes.copy(source, target, length)
        self.effects.append(Copy(source, target, length))
        return target, length

    def make_room(self, count: int) -> bool:
        """Nothing to do."""
        return True

    def extend(self, sequence_id: int, tokens: Tokens, count: int) -> None:
        """Record that the last `count` of a running sequence's `tokens` were computed, and settle what it reserved."""
        new = tokens[self._prefixes.length[sequence_id] :]
        self._num_reserved -= len(new) - count
        self._prefixes.append(sequence_id, new)

    def reserve(self, count: int) -> None:
        """Record `count` decoded tokens; `release` says whose."""
        self._num_reserved += count

    def release(self, sequence_id: int, tokens: Tokens, *, keep: bool) -> None:
        """End a running sequence of which `tokens` are computed; with `keep` they stay for reuse."""
        decoded = tokens[self._prefixes.length[sequence_id] :]
        self._num_reserved -= len(decoded)
        self._running.remove(sequence_id)
        if keep and self._keeps_finished and len(tokens):
            self._prefixes.append(sequence_id, decoded)
            self._cached[sequence_id] = None
        else:
            self._drop(sequence_id)

    def clear(self) -> None:
        """Drop every finished sequence."""
        while self._cached:
            self._drop(self._cached.popitem(last=False)[0])

    def forget(self, adapter: Hashable) -> None:
        """Drop what was computed with an adapter that nothing runs under."""
        for sequence_id in [cached for cached in self._cached if self._prefixes.adapter[cached] is adapter]:
            del self._cached[sequence_id]
            self._drop(sequence_id)

    def check_integrity(self) -> None:
        """Raises AssertionError when an id is lost or held twice."""
        ids = [*self._running, *self._cached, *self._free_ids]
        assert sorted(ids) == list(range(len(self._prefixes.length))), "a sequence id was lost or is held twice"
        assert all(self._prefixes.length[free] == 0 for free in self._free_ids), "a free id holds cells"
        assert self._num_reserved == 0 or self._running, "cells are reserved though nothing runs"

    def _find(self, tokens: Tokens, adapter: Hashable, reuse: bool, source: int) -> tuple[int, int]:
        if not reuse:
            return -1, 0
        if source >= 0:
            return source, self._prefixes.common(source, tokens)
        if not self._keeps_finished:
            return -1, 0
        return self._prefixes.longest(tokens, [*self._cached, *self._running], adapter)

    def _take_over(self, sequence_id: int, length: int) -> None:
        """Let a finished sequence run again as far as it fits."""
        del self._cached[sequence_id]
        self._running.add(sequence_id)
        if length < self._prefixes.length[sequence_id]:
            self._prefixes.length[sequence_id] = length
            self.effects.append(Remove(sequence_id, length))

    def _take_id(self, keep: int, adapter: Hashable) -> int:
        """A free id, if need be that of the oldest finished sequence other than `keep`.

        Sequences of one adapter are computed together, and ids that lie between theirs cost them further passes. So beside
        other adapters' an id near one's own comes before a free one, and before the one that was finished longest ago.
        """
        mine = [running for running in self._running if self._prefixes.adapter[running] is adapter]
        others = [running for running in self._running if self._prefixes.adapter[running] is not adapter]
        finished = [cached for cached in self._cached if cached != keep]
        if others:
            chosen = min([*self._free_ids, *finished], key=_unwelcome(mine, others))
        else:
            chosen = self._free_ids[0] if self._free_ids else finished[0]
        if chosen in self._cached:
            del self._cached[chosen]
            self._drop(chosen)
        self._free_ids.remove(chosen)
        heapq.heapify(self._free_ids)
        return chosen

    def _drop(self, sequence_id: int) -> None:
        self._prefixes.length[sequence_id] = 0
        self._prefixes.adapter[sequence_id] = None
        heapq.heappush(self._free_ids, sequence_id)
        self.effects.append(Remove(sequence_id))


def _unwelcome(mine: list[int], others: list[int]) -> Callable[[int], int]:
    """Of an id: how far it is from `mine`, or, where none of these runs, how near to the others."""
    if mine:
        return lambda free: min(abs(free - running) for running in mine)
    return lambda free: -min(abs(free - running) for running in others)
