"""Which sequence begins with the same tokens. Pure; the part that both kinds of cache share."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
_HEAD = 16
"""Tokens compared for all sequences at once before one is compared whole."""


class Prefixes:
    """The tokens in the cells of each sequence id: row `id`, the first `length[id]` of it."""

    def __init__(self, num_sequence_ids: int, max_length: int) -> None:
        # np.empty: the kernel gives pages only to what is touched.
        self.tokens = np.empty((num_sequence_ids, max_length), dtype=np.int32)
        self.length = np.zeros(num_sequence_ids, dtype=np.int32)
        self.adapter: list[Hashable] = [None] * num_sequence_ids
        """What each id's cells were computed with; None: the base model."""

    def longest(self, tokens: Tokens, among: Iterable[int], adapter: Hashable) -> tuple[int, int]:
        """The id that shares the longest beginning with `tokens` under `adapter`, and its length; (-1, 0) if none does."""
        candidates = np.array([other for other in among if self.adapter[other] is adapter], dtype=np.int32)
        candidates = candidates[self.length[candidates] > 0] if len(candidates) else candidates
        if not len(candidates) or not len(tokens):
            return -1, 0
        head = min(_HEAD, len(tokens))
        same = (self.tokens[candidates, :head] == tokens[:head]) & (np.arange(head) < self.length[candidates][:, None])
        matched = np.cumprod(same, axis=1).sum(axis=1)
        best, best_length = -1, 0
        for index in np.flatnonzero(matched == matched.max()):
            sequence_id, length = int(candidates[index]), int(matched[index])
            if length == head:
                length += self.common(sequence_id, tokens, head)
            if length > best_length:
                best, best_length = sequence_id, length
        return best, best_length

    def common(self, sequence_id: int, tokens: Tokens, start: int = 0) -> int:
        """Equal tokens from `start` on."""
        end = min(int(self.length[sequence_id]), len(tokens))
        differs = self.tokens[sequence_id, start:end] != tokens[start:end]
        return int(differs.argmax()) if differs.any() else max(end - start, 0)

    def append(self, sequence_id: int, tokens: Tokens) -> None:
        """Put `tokens` behind what an id holds."""
        start = int(self.length[sequence_id])
        self.tokens[sequence_id, start : start + len(tokens)] = tokens
        self.length[sequence_id] = start + len(tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target` begin as `source` does."""
        assert self.adapter[source] is self.adapter[target], "cells of another adapter were taken over"
        self.tokens[target, :length] = self.tokens[source, :length]
        self.length[target] = length
