"""Rows as token ids with their loss masks, in flat arrays: five bytes a token."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

import numpy as np

from finetune.dataset.tokens import Rendered

Ints = np.ndarray[Any, np.dtype[np.int32]]
Longs = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


class TokenRows:
    """`ids` and `is_trained` of all rows one behind the other; row p has `starts[p]:starts[p + 1]` of them and is row `numbers[p]` of
    the data. A row's first token is never trained: nothing stands before it that could predict it."""

    def __init__(self, ids: Ints, is_trained: Flags, starts: Longs, numbers: Longs) -> None:
        self.ids, self.is_trained, self.starts, self.numbers = ids, is_trained, starts, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> list[int]:
        """In tokens."""
        return [int(length) for length in np.diff(self.starts)]

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    @property
    def num_trained(self) -> int:
        return int(np.count_nonzero(self.is_trained))

    def row(self, place: int) -> tuple[Ints, Flags]:
        part = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return self.ids[part], self.is_trained[part]

    def digest(self) -> str:
        """Of what is trained, in this order."""
        content = hashlib.sha256()
        for values in (self.ids, self.is_trained, self.starts):
            content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()


class Collector:
    """Takes rows one by one."""

    def __init__(self) -> None:
        self._ids, self._is_trained = array("i"), bytearray()
        self._starts, self._numbers = array("q", [0]), array("q")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, rendered: Rendered) -> bool:
        """Whether the row has a token to train; it is left out else."""
        is_trained = bytes(rendered.is_trained[1:])
        if not any(is_trained):
            return False
        self._ids.extend(rendered.ids)
        self._is_trained += b"\0" + is_trained
        self._starts.append(len(self._ids))
        self._numbers.append(number)
        return True

    def rows(self) -> TokenRows:
        return TokenRows(
            np.array(self._ids, np.int32),
            np.frombuffer(bytes(self._is_trained), np.bool_),
            np.array(self._starts, np.int64),
            np.array(self._numbers, np.int64),
        )
