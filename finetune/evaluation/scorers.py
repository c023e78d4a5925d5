"""Scores of an answer against what was expected, each in [0, 1]: pure functions, in one table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.evaluation.overlap import f1, rouge_l
from finetune.evaluation.schema import Schema, is_valid, loads_strictly, same

_EDGES = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Given:
    """What a scorer may need beside the two texts."""

    schema: Schema = True
    choices: tuple[str, ...] = ()


Score = Callable[[str, str, Given], float]
"""(expected, answer, given)"""


@dataclass(frozen=True, slots=True)
class Scorer:
    words: str
    score: Score
    version: int = 1
    """Another one where the same answer may get another score: suites of other versions are not compared."""


def exact(expected: str, answer: str, given: Given) -> float:
    return float(_plain(expected) == _plain(answer))


def contains(expected: str, answer: str, given: Given) -> float:
    wanted = _plain(expected).casefold()
    return float(bool(wanted) and wanted in _plain(answer).casefold())


def json_schema(expected: str, answer: str, given: Given) -> float:
    try:
        return float(is_valid(given.schema, loads_strictly(answer)))
    except ValueError:
        return 0.0


def json_fields(expected: str, answer: str, given: Given) -> float:
    wanted, found = fields_of(expected), fields_of(answer)
    if wanted is None or found is None:
        return 0.0
    if not wanted and not found:
        return 1.0
    num_right = sum(path in found and same(value, found[path]) for path, value in wanted.items())
    return 2 * num_right / (len(wanted) + len(found))


def choice(expected: str, answer: str, given: Given) -> float:
    return float(chosen(answer, given.choices) == _label(expected))


def chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The one choice that an answer is, begins with or names; None where it names none, or several."""
    said = _label(answer)
    labels = [_label(each) for each in choices]
    if said in labels:
        return said
    begins = [label for label in labels if _begins(said, label)]
    if begins:
        return max(begins, key=len)
    named = {label for label in labels if _names(said, label)}
    # `very good` names `good` too: only the longest of those that lie in each other counts.
    named = {label for label in named if not any(label != other and label in other for other in named)}
    return named.pop() if len(named) == 1 else None


def fields_of(text: str) -> Mapping[str, Any] | None:
    """Every value of a JSON object by its path, `order.items.0`; None where the text is none."""
    try:
        found = loads_strictly(text)
    except ValueError:
        return None
    return dict(_leaves(found, "")) if isinstance(found, dict) else None


def _leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    pairs = list(below)
    if not pairs:
        return [(path, value)] if path else []
    return [leaf for name, each in pairs for leaf in _leaves(each, f"{path}/{name}")]


def _plain(text: str) -> str:
    """Spaces and forms of characters do not count."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _label(text: str) -> str:
    return _EDGES.sub("", _plain(text).casefold())


def _begins(said: str, label: str) -> bool:
    after = said[len(label) : len(label) + 1]
    return bool(label) and said.startswith(label) and not _joins(label[-1], after)


def _names(said: str, label: str) -> bool:
    return any(
        not _joins(said[found.start() - 1 : found.start()], label[0]) and not _joins(label[-1], said[found.end() : found.end() + 1])
        for found in re.finditer(re.escape(label), said)
    ) if label else False  # fmt: skip


def _joins(left: str, right: str) -> bool:
    """Whether two characters are of one word; a Korean particle after a label is not of it."""
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


SCORERS: Mapping[str, Scorer] = {
    "exact": Scorer("the expected text and nothing else; spaces do not count", exact),
    "contains": Scorer("the expected text stands in the answer; case and spaces do not count", contains),
    "json_schema": Scorer("one JSON value that follows the schema, and nothing around it", json_schema),
    "json_fields": Scorer(
        "a JSON object; the share of its fields that are the expected ones, in both directions", json_fields
    ),
    "f1": Scorer(
        "tokens that are the expected ones, in both directions; of Korean, syllables", lambda a, b, _: f1(a, b)
    ),
    "rouge_l": Scorer("the longest common sequence of tokens, in both directions", lambda a, b, _: rouge_l(a, b)),
    "choice": Scorer("the expected one of the choices, and no other", choice),
}
