"""From tokens to text that may be sent: whole characters only, and nothing that could turn out to be a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The growing text of one answer.

    `push` takes the bytes of a token and returns the text that is certain: half a character waits for its other half, and
    a tail that may be the beginning of a stop string waits until it is known. Once a stop string was found it is in
    `stopped_by`, and all further text is dropped.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stops)
        self._held = ""
        self.num_seen = 0
        """Characters decoded so far."""
        self.num_certain = 0
        """Characters handed out: a token that begins before them is part of the answer."""
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """The text that became certain with `piece`."""
        return self._count(self._release(self._decoder.decode(piece)))

    def finish(self) -> str:
        """What was held back at the end of the answer; bytes that never became a character are U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        return self._count(text + rest)

    def _count(self, text: str) -> str:
        self.num_certain += len(text)
        return text

    def _release(self, new: str) -> str:
        self.num_seen += len(new)
        if self.stopped_by is not None:
            return ""
        if not self._stops:
            return new
        text = self._held + new
        ends = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            at, self.stopped_by = min(ends)
            self._held = ""
            return text[:at]
        keep = _undecided(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _undecided(text: str, stops: Sequence[str]) -> int:
    """Length of the longest tail of `text` that is the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
