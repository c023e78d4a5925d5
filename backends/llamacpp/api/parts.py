"""An answer's pieces put together into parts: one for each run of text or reasoning, and one for each call.

    Reasoning("a") Reasoning("b") Content("c") CallStart(0, "f") CallArguments(0, "{}")
    -> begin 0, more "a", more "b", end 0, begin 1, more "c", end 1, begin 2, more "{}", end 2

Both APIs whose answers are lists of typed parts are written from these steps, streamed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import orjson

from backends.llamacpp.message import CallArguments, CallStart, Content, Piece, Reasoning


class Kind(Enum):
    """What a part is."""

    TEXT = "text"
    REASONING = "reasoning"
    CALL = "call"


@dataclass(slots=True, eq=False)
class Part:
    """One part of an answer: a text, a thought, or a call whose arguments are its text."""

    index: int
    kind: Kind
    name: str = ""
    """The called function's."""
    call: int = 0
    """Which call of the answer it is."""
    is_cut: bool = False
    """The answer ended before this part did: a call's arguments are no JSON, for others it is told by how the answer ended."""
    _texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def add(self, text: str) -> None:
        self._texts.append(text)


@dataclass(frozen=True, slots=True)
class Begin:
    part: Part


@dataclass(frozen=True, slots=True)
class More:
    part: Part
    text: str


@dataclass(frozen=True, slots=True)
class End:
    part: Part


Step = Begin | More | End


class Parts:
    """The parts of one answer so far."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self._open: Part | None = None

    def take(self, piece: Piece) -> Iterator[Step]:
        """The steps that a piece makes: at most one part is open at any time, and parts never open again."""
        match piece:
            case CallStart(call, name):
                yield from self._begin(Kind.CALL, name, call)
                return
            case Content(text):
                kind = Kind.TEXT
            case Reasoning(text):
                kind = Kind.REASONING
            case CallArguments(_, text):
                kind = Kind.CALL
        if self._open is None or self._open.kind is not kind:
            yield from self._begin(kind)
        assert self._open is not None
        if text:
            self._open.add(text)
            yield More(self._open, text)

    def end(self, *, is_cut: bool = False) -> Iterator[Step]:
        """Close what is open; `is_cut`: a text or a thought would have gone on."""
        part, self._open = self._open, None
        if part is not None:
            part.is_cut = not _is_json(part.text) if part.kind is Kind.CALL else is_cut
            yield End(part)

    def _begin(self, kind: Kind, name: str = "", call: int = 0) -> Iterator[Step]:
        yield from self.end()
        self._open = Part(len(self.all), kind, name, call)
        self.all.append(self._open)
        yield Begin(self._open)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
