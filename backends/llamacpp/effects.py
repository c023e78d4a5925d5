"""What a cache decides and the engine carries out in llama.cpp, in order, before the next step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remove:
    """Drop the positions of a sequence from `start` on."""

    sequence_id: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """Let `target` begin with the first `length` cells of `source`: the same cells."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `target` begin with the first `length` positions of `source`, in cells of its own."""

    source: int
    target: int
    length: int


Effect = Remove | Share | Copy
