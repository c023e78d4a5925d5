"""What an answer's text says: content, reasoning, tool calls. Pure text in, pieces out, as early as they are certain.

    <think>so</think>Hello<tool_call>\\n{"name": "f", "arguments": {"a": 1}}\\n</tool_call>
    -> Reasoning("so") Content("Hello") CallStart(0, "f") CallArguments(0, '{"a": 1}')

The syntax of calls is exactly that of the grammar that the answer followed (backends.llamacpp.tools), so no guess is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.llamacpp.tools import Dialect


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model wrote to itself."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Tool call number `index` of this answer begins."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments: JSON text, whole once all pieces are put together."""

    index: int
    text: str


Piece = Content | Reasoning | CallStart | CallArguments


@dataclass(frozen=True, slots=True)
class Markup:
    """What a model's template says about its answers."""

    think: tuple[str, str] | None = None
    """Tags around reasoning."""
    is_thinking: bool = False
    """The prompt ends inside an open reasoning tag."""
    calls: Dialect | None = None
    """The syntax of tool calls, where the request allows any."""

    @property
    def is_plain(self) -> bool:
        """Whether the text is nothing but content."""
        return self.think is None and self.calls is None


PLAIN = Markup()
"""Nothing but content."""


class MessageParser:
    """Reads the growing text of one answer."""

    def __init__(self, markup: Markup) -> None:
        self._think = markup.think
        self._calls = markup.calls
        self._held = ""
        self._num_fed = 0
        self._spans: list[tuple[int, int]] = []
        """Where content stands in the text."""
        self._num_calls = 0
        self._depth = 0
        self._is_in_string = self._is_escaped = False
        self._read: Callable[[], list[Piece] | None] = self._read_start
        if markup.is_thinking:
            self._read = self._read_reasoning

    @property
    def is_reasoning(self) -> bool:
        """Whether the text that comes next is reasoning."""
        return self._read == self._read_reasoning

    @property
    def num_calls(self) -> int:
        """Tool calls begun so far."""
        return self._num_calls

    @property
    def num_read(self) -> int:
        """Characters of the text about which it is certain what they are."""
        return self._num_fed - len(self._held)

    def is_content(self, start: int, end: int) -> bool:
        """Whether any of the text's characters from `start` up to `end` is content."""
        return any(first < end and start < last for first, last in self._spans)

    def feed(self, text: str) -> list[Piece]:
        """The pieces that became certain with `text`."""
        self._held += text
        self._num_fed += len(text)
        found: list[Piece] = []
        while self._held:
            start = self.num_read
            pieces = self._read()
            if pieces is None:
                break
            found += self._noted(start, pieces)
        return found

    def finish(self) -> list[Piece]:
        """What was held back when the answer ended."""
        start = self.num_read
        rest, self._held = self._held, ""
        if not rest or self._read in (self._read_name, self._read_after_call):
            return []
        if self._read == self._read_reasoning:
            return [Reasoning(rest)]
        return self._noted(start, [Content(rest)] if rest.strip() or not self._num_calls else [])

    def _noted(self, start: int, pieces: list[Piece]) -> list[Piece]:
        """Pieces whose text begins at `start`, with their place remembered."""
        for piece in pieces:
            if isinstance(piece, Content):
                first = self._spans.pop()[0] if self._spans and self._spans[-1][1] == start else start
                self._spans.append((first, start + len(piece.text)))
        return pieces

    # Each reader takes what it can from the held text; None: it needs more.

    def _read_start(self) -> list[Piece] | None:
        """The first thing: a reasoning tag, or something else."""
        if self._think is None:
            return self._go_on(self._read_content, 0)
        text = self._held.lstrip()
        if text.startswith(self._think[0]):
            return self._go_on(self._read_reasoning, len(self._held) - len(text) + len(self._think[0]))
        if self._think[0].startswith(text):
            return None
        return self._go_on(self._read_content, 0)

    def _read_reasoning(self) -> list[Piece] | None:
        assert self._think is not None
        at = self._held.find(self._think[1])
        if at >= 0:
            text = self._held[:at]
            self._go_on(self._skip_space, at + len(self._think[1]))
            return [Reasoning(text)] if text else []
        text = self._take_certain(self._think[1])
        return [Reasoning(text)] if text else None

    def _skip_space(self) -> list[Piece] | None:
        """The blank line between reasoning and content belongs to neither."""
        self._held = self._held.lstrip()
        return self._go_on(self._read_content, 0) if self._held else None

    def _read_content(self) -> list[Piece] | None:
        if self._calls is None:
            return [Content(self._take(len(self._held)))]
        at = self._held.find(self._calls.first)
        if at == 0 or (at > 0 and not self._calls.is_whole_answer):
            text = self._take(at).rstrip()
            self._go_on(self._read_name, len(self._calls.first))
            return [Content(text)] if text else []
        if self._calls.is_whole_answer and not self._calls.first.startswith(self._held):
            self._calls = None
            return []
        text = self._take_certain(self._calls.first, with_space=True)
        return [Content(text)] if text else None

    def _read_name(self) -> list[Piece] | None:
        assert self._calls is not None
        at = self._held.find(self._calls.after_name)
        if at < 0:
            return None
        name = self._held[:at]
        self._go_on(self._read_arguments, at + len(self._calls.after_name))
        self._num_calls += 1
        return [CallStart(self._num_calls - 1, name)]

    def _read_arguments(self) -> list[Piece] | None:
        """JSON text up to the brace that closes the object."""
        for at, character in enumerate(self._held):
            if self._closes(character):
                text = self._take(at + 1)
                self._go_on(self._read_after_call, 0)
                return [CallArguments(self._num_calls - 1, text)]
        return [CallArguments(self._num_calls - 1, self._take(len(self._held)))]

    def _read_after_call(self) -> list[Piece] | None:
        assert self._calls is not None
        rest = self._held.removeprefix(self._calls.after_arguments).lstrip("\n")
        if self._calls.again and rest.startswith(self._calls.again):
            self._held = rest
            return self._go_on(self._read_name, len(self._calls.again))
        return None

    def _closes(self, character: str) -> bool:
        """Whether `character` closes the outermost object."""
        if self._is_in_string:
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = True
            elif character == '"':
                self._is_in_string = False
        elif character == '"':
            self._is_in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            return self._depth == 0
        return False

    def _go_on(self, reader: Callable[[], list[Piece] | None], length: int) -> list[Piece]:
        self._read = reader
        self._held = self._held[length:]
        return []

    def _take(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _take_certain(self, tag: str, *, with_space: bool = False) -> str:
        """What cannot be the beginning of `tag`, nor with `with_space` the space before it."""
        keep = next((n for n in range(min(len(tag) - 1, len(self._held)), 0, -1) if self._held.endswith(tag[:n])), 0)
        certain = self._held[: len(self._held) - keep]
        return self._take(len(certain.rstrip()) if with_space else len(certain))
