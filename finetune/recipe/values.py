"""What a key takes: each kind reads a node strictly, and says in words what it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from finetune.recipe.document import Node
from finetune.recipe.findings import nearest

_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[-+]?\d+)?", re.IGNORECASE)
"""`2e-4` too, which is a text in YAML 1.1."""
_OCTAL = re.compile(r"[-+]?0\d+")
_HOOK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Unfit(Exception):
    """A value that its key does not take; the message says what it takes."""


class Kind(Protocol):
    @property
    def words(self) -> str:
        """What it takes."""

    def read(self, node: Node) -> Any:
        """Raises Unfit."""


@dataclass(frozen=True, slots=True)
class Number:
    low: float = -math.inf
    high: float = math.inf
    above: float | None = None
    """In place of `low`: more than this."""

    @property
    def words(self) -> str:
        return "number" + _range_words(self.low, self.high, self.above)

    def read(self, node: Node) -> float:
        return _in_range(_number(node, "a number"), self.low, self.high, self.above)


@dataclass(frozen=True, slots=True)
class Whole:
    low: int = 0
    high: float = math.inf
    others: Mapping[str, int] = field(default_factory=dict)
    """Words that it takes besides numbers -> what they mean."""

    @property
    def words(self) -> str:
        return " | ".join(("whole number" + _range_words(self.low, self.high, None), *self.others))

    def read(self, node: Node) -> int:
        text = node.value.lower() if isinstance(node.value, str) else ""
        if text in self.others:
            return self.others[text]
        expected = " or ".join(("a whole number", *self.others))
        value = _number(node, expected)
        if value != int(value):
            raise Unfit(f"expected {expected}, got {node.shown}")
        return int(_in_range(value, self.low, self.high, None))


@dataclass(frozen=True, slots=True)
class Switch:
    others: Mapping[str, Any] = field(default_factory=dict)
    """Words that it takes besides true and false -> what they mean."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Words that are known -> why they are not taken, and what to use."""

    @property
    def words(self) -> str:
        return " | ".join(("true", "false", *self.others))

    def read(self, node: Node) -> Any:
        text = node.value.lower() if isinstance(node.value, str) else ""
        if node.is_plain and text in _SWITCH:
            return _SWITCH[text]
        if text in self.others:
            return self.others[text]
        if text in self.refused:
            raise Unfit(f"{text!r}: {self.refused[text]}")
        quoted = " without quotes" if text in _SWITCH else ""
        raise Unfit(f"expected {self.words}{quoted}, got {node.shown}")


@dataclass(frozen=True, slots=True)
class Text:
    words: str = "text"

    def read(self, node: Node) -> str:
        if not isinstance(node.value, str) or not node.value.strip():
            raise Unfit(f"expected a text, got {node.shown}")
        return node.value.strip()


@dataclass(frozen=True, slots=True)
class Choice:
    options: Mapping[str, Any]
    """Word -> what it means."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Words that are known -> why they are not taken, and what to use."""

    @property
    def words(self) -> str:
        return " | ".join(self.options)

    def read(self, node: Node) -> Any:
        text = node.value.strip() if isinstance(node.value, str) else ""
        plain = text.lower()
        if plain in self.options:
            return self.options[plain]
        if plain in self.refused:
            raise Unfit(f"{text!r}: {self.refused[plain]}")
        close = nearest(plain, self.options)
        hint = f" (did you mean {close!r}?)" if close else ""
        raise Unfit(f"expected {self.words}, got {node.shown}{hint}")


@dataclass(frozen=True, slots=True)
class Words:
    """A list of texts; a single one stands for a list of one."""

    words: str = "list of texts"

    def read(self, node: Node) -> tuple[str, ...]:
        nodes = node.value if isinstance(node.value, list) else [node]
        texts = tuple(Text().read(each) for each in nodes)
        if len(set(texts)) < len(texts):
            twice = next(text for index, text in enumerate(texts) if text in texts[:index])
            raise Unfit(f"{twice!r} is in the list twice")
        return texts


@dataclass(frozen=True, slots=True)
class Hook:
    words: str = "module:Name"

    def read(self, node: Node) -> str:
        if not isinstance(node.value, str) or not _HOOK.fullmatch(node.value):
            raise Unfit(f"expected module:Name, for example mine.losses:focal, got {node.shown}")
        return node.value


@dataclass(frozen=True, slots=True)
class Hooks:
    words: str = "list of module:Name"

    def read(self, node: Node) -> tuple[str, ...]:
        return tuple(Hook().read(each) for each in (node.value if isinstance(node.value, list) else [node]))


@dataclass(frozen=True, slots=True)
class Structure:
    """Keys and values, or a list of them, that a section reads by itself."""

    words: str

    def read(self, node: Node) -> Node:
        return node


def _number(node: Node, expected: str) -> float:
    if not isinstance(node.value, str):
        raise Unfit(f"expected {expected}, got {node.shown}")
    if not node.is_plain and _NUMBER.fullmatch(node.value):
        raise Unfit(f"expected {expected}, got the text {node.shown}: write it without quotes")
    if _OCTAL.fullmatch(node.value):
        raise Unfit(f"{node.shown} may be meant as octal: write it without the leading zero")
    if not node.is_plain or not _NUMBER.fullmatch(node.value):
        raise Unfit(f"expected {expected}, got {node.shown}")
    value = float(node.value.replace("_", ""))
    if not math.isfinite(value):
        raise Unfit(f"{node.shown} is too large a number")
    return value


def _in_range(value: float, low: float, high: float, above: float | None) -> float:
    if not low <= value <= high or (above is not None and not value > above):
        raise Unfit(f"must be{_range_words(low, high, above)}, got {_shown(value)}")
    return value


def _range_words(low: float, high: float, above: float | None) -> str:
    if above is not None:
        return f" above {_shown(above)}" + (f", at most {_shown(high)}" if high < math.inf else "")
    if low > -math.inf and high < math.inf:
        return f" {_shown(low)} to {_shown(high)}"
    return f" {_shown(low)} or more" if low > -math.inf else ""


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:g}"
