"""A row as the checks see it, whatever form its record has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str | int, ...]
"""Where a text stands in its record: keys and indices from the outside in."""
SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: str
    place: Place
    has_calls: bool = False
    """Whether it calls tools, so that it may have no text."""
    is_masked: bool = False
    """Whether the record itself takes it out of the loss (`weight: 0`, `train: false`)."""


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    """From 1, in the order of the file."""
    form: str
    turns: tuple[Turn, ...]
    instruction: str
    """What rows of one task have in common: Alpaca's instruction beside an input, else the system prompt."""
    record: dict[str, Any]
    problems: tuple[str, ...] = field(default=())
    """What is wrong with the record's own shape."""

    @property
    def answer(self) -> str:
        """The last thing the assistant says; empty where it says nothing."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == ASSISTANT), "")

    @property
    def system(self) -> str:
        return "\n".join(turn.text for turn in self.turns if turn.role == SYSTEM)

    @property
    def question(self) -> str:
        """All that is said before the last answer, without the system prompt."""
        last = max((place for place, turn in enumerate(self.turns) if turn.role == ASSISTANT), default=len(self.turns))
        return "\n".join(turn.text for turn in self.turns[:last] if turn.role != SYSTEM)

    @property
    def user_text(self) -> str:
        return "\n".join(turn.text for turn in self.turns if turn.role == USER)

    @property
    def num_exchanges(self) -> int:
        return sum(turn.role == ASSISTANT for turn in self.turns)

    def texts(self) -> Iterator[str]:
        return (turn.text for turn in self.turns)


def messages(row: Row) -> list[dict[str, Any]]:
    """What chat templates take: Alpaca's instruction and input are one message, tool calls are as the record has them."""
    found: list[dict[str, Any]] = []
    for turn in row.turns:
        if turn.place == ("input",):
            found[-1]["content"] = f"{found[-1]['content']}\n\n{turn.text}".lstrip()
            continue
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        source = _at(row.record, turn.place[:-1])
        if turn.has_calls and isinstance(source, dict) and "tool_calls" in source:
            message["tool_calls"] = source["tool_calls"]
        found.append(message)
    return found


def rewritten(row: Row, texts: dict[Place, str]) -> dict[str, Any]:
    """The record with other texts at these places; what does not change is shared with the row's."""
    record: Any = row.record
    for place, text in texts.items():
        record = _with(record, place, text)
    return dict(record)


def _at(record: Any, place: Place) -> Any:
    for step in place:
        record = record[step]
    return record


def _with(value: Any, place: Place, text: str) -> Any:
    if not place:
        return text
    copy: Any = list(value) if isinstance(value, list | tuple) else dict(value)
    copy[place[0]] = _with(value[place[0]], place[1:], text)
    return copy
