"""Who holds which KV cell. Pure: it mirrors llama.cpp's unified cache and decides; the engine applies.

Cells are shared between sequences that began with the same tokens (llama_memory_seq_cp marks the same cells, it copies
nothing), so a cell is free when no sequence holds it. A finished sequence stays as *cached* until its cells are wanted:

    held by a running sequence          in use
    held by cached sequences only       evictable, least recently used sequence first; at most `max_cached` of them
    held by nobody                      free

Cached cells are not free of charge: llama.cpp's attention runs over all cells up to the highest one in use and masks those
of other sequences, so a full cache slows every step of a small model. Hence the bound.

Cell numbers here are bookkeeping; llama.cpp picks its own, but as many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.effects import Effect, Remove, Share
from backends.llamacpp.prefixes import Prefixes

Tokens = NDArray[np.int32]
_PARAMETERS_PER_MASKED_CELL = 22
"""A masked cell costs a head as much as so many parameters cost a token: 1.65 ns and 0.079 ns alone, 1.0 and 0.042 in a
batch of 8 (demo model, F16, one CPU core; 21 to 25)."""
_MASKED_SHARE = 0.075


def default_max_cached(num_parameters: int, num_attention_heads: int, num_cells: int) -> int:
    """Cells that may stay cached so that masking them lengthens a decode step by at most 7.5 %.

    780 for the demo model, 26,000 for an 8B one; never more than there are. `num_attention_heads` is over all layers.
    """
    cells = _MASKED_SHARE * num_parameters / (_PARAMETERS_PER_MASKED_CELL * max(num_attention_heads, 1))
    return min(int(cells), num_cells)


class KVCache:
    """Cells, sequence ids and cached prefixes of one context.

    `effects` collects what the engine must apply to the context, in order, before its next decode.
    """

    def __init__(self, num_cells: int, num_sequence_ids: int, max_length: int, *, max_cached: int) -> None:
        self.num_cells = num_cells
        self._max_cached = max_cached
        self.effects: list[Effect] = []
        self._prefixes = Prefixes(num_sequence_ids, max_length)
        self._cells = np.empty((num_sequence_ids, max_length), dtype=np.int32)
        self.length = self._prefixes.length
        self._holders = np.zeros(num_cells, dtype=np.int32)
        self._runners = np.zeros(num_cells, dtype=np.int32)
        self._num_held = 0
        self._num_reserved = 0
        self._free = np.arange(num_cells, dtype=np.int32)
        self._num_unheld = num_cells
        self._free_ids = list(range(num_sequence_ids - 1, -1, -1))
        self._running: set[int] = set()
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Cells that nobody holds."""
        return self._num_unheld - self._num_reserved

    @property
    def num_used(self) -> int:
        """Cells held by running sequences."""
        return self._num_held + self._num_reserved

    @property
    def num_counted(self) -> int:
        """Positions of all running sequences; a shared cell counts for each."""
        return int(self.length[list(self._running)].sum()) + self._num_reserved

    @property
    def num_available(self) -> int:
        """Cells that are free or can be made free by eviction."""
        return self.num_cells - self.num_used

    @property
    def num_cached(self) -> int:
        """Cells held by cached sequences only."""
        return self.num_cells - self.num_free - self.num_used

    def acquire(
        self, tokens: Tokens, *, adapter: Hashable = None, reuse: bool = True, source: int = -1
    ) -> tuple[int, int]:
        """A running sequence id for `tokens` under `adapter`, and how many of them are in the cache already.

        The last token is never taken from the cache: its logits are wanted. `source` names a running sequence that is
        known to begin with the same tokens and is used whatever the bound on cached cells.
        """
        if source >= 0 and reuse:
            length = self._prefixes.common(source, tokens[:-1])
        else:
            can_reuse = reuse and self._max_cached
            among = [*self._cached, *self._running] if can_reuse else []
            source, length = self._prefixes.longest(tokens[:-1], among, adapter)
        if source in self._cached and length == self.length[source]:
            # The new prompt continues this sequence (the next turn of a chat): take it over.
            del self._cached[source]
            self._run(source)
            return source, length
        if source in self._cached:
            self._cached.move_to_end(source)
        target = self._take_id(keep=source)
        self._prefixes.adapter[target] = adapter
        if length:
            cells = self._cells[source, :length]
            self._holders[cells] += 1
            self._cells[target, :length] = cells
            self._prefixes.copy(source, target, length)
            self.effects.append(Share(source, target, length))
        self._run(target)
        return target, length

    def make_room(self, count: int) -> bool:
        """Evict cached sequences, least recently used first, until `count` cells are free. False: not enough."""
        while self.num_free < count and self._cached:
            self._drop(self._cached.popitem(last=False)[0])
        return self.num_free >= count

    def extend(self, sequence_id: int, tokens: Tokens, count: int) -> None:
        """Record that the last `count` of a running sequence's `tokens` were computed; the room must be there.

        Cells that it reserved for decoded tokens before these are settled with them.
        """
        assert count <= self.num_free, "a step was planned without room for it"
        new = tokens[self.length[sequence_id] :]
        self._num_reserved -= len(new) - count
        self._runners[self._hold(sequence_id, new)] = 1
        self._num_held += len(new)

    def reserve(self, count: int) -> None:
        """Record that running sequences took `count` cells for decoded tokens; `release` says which took how many.

        A decode step costs one addition here instead of work per sequence.
        """
        assert count <= self.num_free, "a step was planned without room for it"
        self._num_reserved += count

    def release(self, sequence_id: int, tokens: Tokens, *, keep: bool) -> None:
        """End a running sequence of which `tokens` are computed, reserved ones included.

        With `keep` its cells stay for reuse, within the bound, until they are wanted.
        """
        decoded = tokens[self.length[sequence_id] :]
        self._num_reserved -= len(decoded)
        self._running.remove(sequence_id)
        cells = self._cells[sequence_id, : self.length[sequence_id]]
        self._runners[cells] -= 1
        self._num_held -= int((self._runners[cells] == 0).sum())
        if not keep or not self._max_cached or not len(tokens):
            self._drop(sequence_id)
            return
        self._keep(sequence_id, tokens[: self._max_cached], has_more=len(tokens) > self._max_cached)
        while self.num_cached > self._max_cached:
            self._drop(self._cached.popitem(last=False)[0])

    def _keep(self, sequence_id: int, tokens: Tokens, *, has_more: bool) -> None:
        """Cache a released sequence's beginning; `has_more`: what it computed beyond `tokens` is freed."""
        length = int(self.length[sequence_id])
        if len(tokens) < length:
            self._let_go(self._cells[sequence_id, len(tokens) : length])
            self.length[sequence_id] = len(tokens)
        else:
            self._hold(sequence_id, tokens[length:])
        if has_more:
            self.effects.append(Remove(sequence_id, len(tokens)))
        self._cached[sequence_id] = None

    def clear(self) -> None:
        """Drop every cached sequence."""
        self.make_room(self.num_cells + 1)

    def forget(self, adapter: Hashable) -> None:
        """Drop what was computed with an adapter that nothing runs under."""
        for sequence_id in [cached for cached in self._cached if self._prefixes.adapter[cached] is adapter]:
            del self._cached[sequence_id]
            self._drop(sequence_id)

    def check_integrity(self) -> None:
        """Recount everything. Raises AssertionError when a cell or an id is lost or held twice."""
        ids = [*self._running, *self._cached]
        holders = np.zeros_like(self._holders)
        for sequence_id in ids:
            holders[self._cells[sequence_id, : self.length[sequence_id]]] += 1
        runners = np.zeros_like(self._runners)
        for sequence_id in self._running:
            runners[self._cells[sequence_id, : self.length[sequence_id]]] += 1
        assert (holders == self._holders).all(), "a cell's holders were miscounted"
        assert (runners == self._runners).all(), "a cell's running holders were miscounted"
        assert int((runners > 0).sum()) == self._num_held, "used cells were miscounted"
        assert int((holders == 0).sum()) == self._num_unheld, "free cells were miscounted"
        assert self._num_reserved == 0 or self._running, "cells are reserved though nothing runs"
        assert (holders[self._free[: self._num_unheld]] == 0).all(), "a held cell is on the free list"
        assert len(set(ids)) == len(ids), "a sequence is running and cached"
        assert sorted([*ids, *self._free_ids]) == list(range(len(self.length))), "a sequence id was lost"
        assert all(self.length[sequence_id] == 0 for sequence_id in self._free_ids), "a free id holds cells"

    def _run(self, sequence_id: int) -> None:
        self._running.add(sequence_id)
        cells = self._cells[sequence_id, : self.length[sequence_id]]
        self._num_held += int((self._runners[cells] == 0).sum())
        self._runners[cells] += 1

    def _take_id(self, keep: int) -> int:
        """A free id, if need be that of the oldest cached sequence other than `keep`."""
        if not self._free_ids:
            oldest = next(sequence_id for sequence_id in self._cached if sequence_id != keep)
            del self._cached[oldest]
            self._drop(oldest)
        return self._free_ids.pop()

    def _drop(self, sequence_id: int) -> None:
        self._let_go(self._cells[sequence_id, : self.length[sequence_id]])
        self.length[sequence_id] = 0
        self._prefixes.adapter[sequence_id] = None
        self._free_ids.append(sequence_id)
        self.effects.append(Remove(sequence_id))

    def _let_go(self, cells: NDArray[np.int32]) -> None:
        """Free those of a sequence's cells that nobody else holds."""
        self._holders[cells] -= 1
        freed = cells[self._holders[cells] == 0]
        self._free[self._num_unheld : self._num_unheld + len(freed)] = freed
        self._num_unheld += len(freed)

    def _hold(self, sequence_id: int, tokens: Tokens) -> NDArray[np.int32]:
        """Append cells with `tokens` to a sequence."""
        start, end = int(self.length[sequence_id]), int(self.length[sequence_id]) + len(tokens)
        self._num_unheld -= len(tokens)
        cells = self._free[self._num_unheld : self._num_unheld + len(tokens)]
        self._holders[cells] = 1
        self._cells[sequence_id, start:end] = cells
        self._prefixes.append(sequence_id, tokens)
        return cells
