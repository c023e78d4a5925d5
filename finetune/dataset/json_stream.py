"""JSON and JSONL as a stream: an array of records, one record a line, records one after the other, or an object that holds the array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune.dataset.errors import DataUnusable

_DECODER = json.JSONDecoder(strict=False)
_SPACE = " \t\r\n"
_CHUNK_CHARS = 1 << 18
_MAX_RECORD_CHARS = 64 * 1024 * 1024
_LISTS_OF_A_RECORD = frozenset({"messages", "conversations", "history", "tools", "prompt", "completion"})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that cannot be parsed."""

    why: str
    text: str


def read_lines(lines: Iterator[str]) -> Iterator[Any]:
    """One record a line; a line that is no JSON is an Unreadable, blank lines are none."""
    for line in lines:
        text = line.strip().rstrip(",") if line.strip() not in "[]" else ""
        if text:
            yield parse(text)


def parse(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as exc:
        return Unreadable(f"no JSON: {exc.msg} at column {exc.colno}", text[:200])
    except RecursionError:
        return Unreadable("nested too deeply", text[:200])


class Scanner:
    """Reads values off a stream of text, holding no more than the value it is at."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._text = ""
        self._at = 0

    def records(self) -> Iterator[Any]:
        """Raises DataUnusable where the file as a whole is no JSON."""
        first = self._peek()
        if first == "[":
            self._at += 1
            yield from self._items()
        elif first == "{":
            yield from self._object()
        else:
            raise DataUnusable("it is no JSON: it begins with neither [ nor {")

    def _items(self) -> Iterator[Any]:
        while True:
            char = self._peek()
            if char == "":
                yield Unreadable("the file ends within its array: it was cut off", "")
                return
            if char == "]":
                return
            if char == ",":
                self._at += 1
                continue
            value = self._value()
            if isinstance(value, Unreadable):
                yield Unreadable(f"{value.why}; what follows it in the file was not read", value.text)
                return
            yield value

    def _object(self) -> Iterator[Any]:
        """{"data": [records]}, or records one after the other."""
        start = self._at
        self._at += 1
        while self._peek() == '"':
            key = self._value()
            if isinstance(key, Unreadable) or self._peek() != ":":
                break
            self._at += 1
            if self._peek() == "[" and key not in _LISTS_OF_A_RECORD:
                self._at += 1
                if self._peek() == "{":
                    yield from self._items()
                    return
                break
            if isinstance(self._value(keep=True), Unreadable) or self._peek() != ",":
                break
            self._at += 1
        self._at = start
        yield from self._items_without_array()

    def _items_without_array(self) -> Iterator[Any]:
        while self._peek():
            value = self._value()
            yield value
            if isinstance(value, Unreadable):
                return

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        part, size = [], 0
        for line in self._lines:
            part.append(line)
            size += len(line)
            if size >= _CHUNK_CHARS:
                break
        self._text += "".join(part)
        return bool(part)

    def _value(self, keep: bool = False) -> Any:
        """The value at the cursor; what was read before it is let go, unless `keep`."""
        if not keep and self._at > _CHUNK_CHARS:
            self._text, self._at = self._text[self._at :], 0
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
                return value
            except json.JSONDecodeError as exc:
                if len(self._text) - self._at > _MAX_RECORD_CHARS or not self._more():
                    return Unreadable(f"no JSON: {exc.msg}", self._text[self._at : self._at + 200])
            except RecursionError:
                return Unreadable("nested too deeply", self._text[self._at : self._at + 200])
