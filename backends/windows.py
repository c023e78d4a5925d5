"""A text cut into windows of tokens, each computed from an empty context. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


def cut(tokens: Sequence[int] | Tokens, length: int, bos: int | None, most: int = 0) -> list[Tokens]:
    """Whole windows of `length` tokens, one after the other, spread over the text where it has more than `most` (0: all).

    With `bos` each begins with that token, in place of one of the text: what the model begins every text with, it must see.
    """
    row = np.asarray(tokens, dtype=np.int32)
    own = length - (bos is not None)
    count = len(row) // own
    chosen = range(count) if not most or count <= most else [index * count // most for index in range(most)]
    return [_window(row[index * own : (index + 1) * own], bos) for index in chosen]


def _window(own: Tokens, bos: int | None) -> Tokens:
    return own if bos is None else np.concatenate([np.array([bos], dtype=np.int32), own])
