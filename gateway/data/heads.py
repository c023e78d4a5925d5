"""Heads that have been seen before are not parsed again.

A client sends the same head with every request, and an engine with every answer, but for the length of the body (and an
engine's date, which changes once a second). Parsing one header by header costs more than relaying a request otherwise
does, so both directions keep a bounded table

    head with the digits of its content-length taken out -> parsed head

A hit is byte for byte a head that the strict parser has accepted, so it would be accepted again, with the same result.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Head = TypeVar("Head")
MAX_HEADS = 512
MAX_KEY_BYTES = 4096
"""Longer heads are unusual, and not worth the memory."""
_MAX_DIGITS = 15
_NAME_BYTES = len(b"\r\ncontent-length: ")


def split_length(head: bytes) -> tuple[bytes, int]:
    """Return `head` without the digits of its content-length, and that number; -1 where there is none to take out."""
    at = head.find(b"\r\ncontent-length: ")
    if at < 0:
        at = head.find(b"\r\nContent-Length: ")
        if at < 0:
            return head, -1
    start = at + _NAME_BYTES
    end = head.find(b"\r\n", start)
    if end < 0:
        end = len(head)
    digits = head[start:end]
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return head, -1
    return head[:start] + head[end:], int(digits)


class HeadTable(Generic[Head]):
    """Bounded: when full it starts afresh, which is as good as any order for what is mostly a handful of heads."""

    __slots__ = ("_heads", "get")

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self.get = self._heads.get

    def add(self, key: bytes, head: Head) -> None:
        """Remember a head."""
        if len(key) > MAX_KEY_BYTES:
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[key] = head
