"""Rows that ask the same: copies, near copies, contradictions, and questions of the evaluation set within the training set."""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.dataset.ledger import key_of
from finetune.dataset.likeness import ESTABLISHED, Gist, compare, gist_of
from finetune.dataset.progress import Watch
from finetune.dataset.row import Row
from finetune.dataset.similarity import Clusters, Frequencies, Signatures, candidate_pairs, grams, telling
from finetune.dataset.text import squash

DUPLICATE, NEAR, CONFLICT, LEAKAGE = "duplicate", "near_duplicate", "conflict", "leakage"
_FAMILY = 3
"""So many rows that differ from one in a word are rows of a template."""
_MIN_SQUASHED = 4
_MAX_COMPARED = 20
_MAX_CACHED = 20_000
_MIN_TOO_COMMON = 20
GetRow = Callable[[int], Row]


@dataclass(frozen=True, slots=True)
class Match:
    """A row (by index) that is like an earlier one."""

    kind: str
    row: int
    other: int
    is_minority: bool = True
    """Of a conflict: whether the answer is not the one that most rows give."""


class Index:
    """Built in two passes over the rows: `count` all, then `add` all, in the same order."""

    def __init__(self) -> None:
        self._grams = Frequencies()
        self._words = Frequencies()
        self._num_rows = 0
        self._signatures = Signatures()
        self._sizes = array("L")
        self._num_uncommon = 0
        self._common: dict[str, int] = {}

    def count(self, row: Row) -> None:
        self._num_rows += 1
        gist = gist_of(row.question)
        self._grams.add(grams(gist.squashed))
        self._words.add(np.array(sorted(set(map(_word_key, gist.words))), dtype=np.uint64))

    def add(self, row: Row) -> None:
        gist = gist_of(row.question)
        found = grams(gist.squashed) if len(gist.squashed) >= _MIN_SQUASHED else grams("")
        self._sizes.append(len(gist.squashed))
        # Not by negations: one that is mistyped is not counted, and yet is there.
        facet = key_of(f"{squash(row.system)}\0{gist.numbers}") * 0x9E3779B97F4A7C15
        rare = telling(found, self._grams, self._num_rows)
        self._num_uncommon += int((self._grams.of(found) <= max(2, self._num_rows // 20)).sum())
        self._signatures.add(found, rare, facet)

    @property
    def mean_uncommon(self) -> float:
        """Grams of a question that at most one row in twenty has, on average."""
        return self._num_uncommon / max(1, len(self._signatures))

    def how_common(self, word: str) -> int:
        found = self._common.get(word)
        if found is None:
            if len(self._common) >= _MAX_CACHED:
                self._common.clear()
            found = self._common[word] = int(self._words.of(np.array([_word_key(word)], dtype=np.uint64))[0])
        return found

    def near_pairs(self, get_row: GetRow, watch: Watch) -> list[tuple[int, int, bool]]:
        """Pairs of indices whose questions are near duplicates, and whether they differ on the surface only."""
        too_common = max(_MIN_TOO_COMMON, self._num_rows / 2)
        cached = _Cached(get_row, lambda word: self.how_common(word) <= too_common)
        found = []
        pairs = candidate_pairs(self._signatures, np.array(self._sizes, dtype=np.uint32))
        for first, second in watch.follow("compare rows", _chunks(pairs), len(pairs)):
            likeness = compare(*_comparable(cached(first), cached(second)), self.how_common)
            if likeness.is_near:
                found.append((first, second, likeness.is_surface))
        return _without_families(found)


def _chunks(pairs: NDArray[np.int64]) -> Iterator[list[int]]:
    """Rows of the array as lists, without making all of them at once."""
    for start in range(0, len(pairs), _MAX_CACHED):
        yield from pairs[start : start + _MAX_CACHED].tolist()


@dataclass(frozen=True, slots=True)
class _Question:
    instruction: str
    """Squashed; empty where the row has no part that it shares with others."""
    own: Gist
    """Without the instruction."""
    whole: Gist


def _question_of(row: Row, says: Callable[[str], bool]) -> _Question:
    text, instruction = row.question, row.instruction
    whole = gist_of(text, says)
    if not instruction or not text.startswith(instruction):
        return _Question("", whole, whole)
    return _Question(squash(instruction), gist_of(text[len(instruction) :], says), whole)


def _comparable(first: _Question, second: _Question) -> tuple[Gist, Gist]:
    """Where the instruction is the same, what it is applied to; else all of it."""
    return (first.own, second.own) if first.instruction == second.instruction else (first.whole, second.whole)


class _Cached:
    """Questions of rows, the latest few thousand."""

    def __init__(self, get_row: GetRow, says: Callable[[str], bool]) -> None:
        self._get_row, self._says = get_row, says
        self._kept: dict[int, _Question] = {}

    def __call__(self, index: int) -> _Question:
        found = self._kept.get(index)
        if found is None:
            if len(self._kept) >= _MAX_CACHED:
                self._kept.clear()
            found = self._kept[index] = _question_of(self._get_row(index), self._says)
        return found


def _word_key(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _without_families(pairs: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """A row with several partners that each have another word in one place is one of a template's: not copies, but instances."""
    partners: Counter[int] = Counter()
    for first, second, is_surface in pairs:
        if not is_surface:
            partners[first] += 1
            partners[second] += 1
    return [
        (first, second, is_surface)
        for first, second, is_surface in pairs
        if is_surface or max(partners[first], partners[second]) < _FAMILY
    ]


def matches(
    keys: Iterable[int],
    exact: Sequence[int],
    answers: Sequence[int],
    near: list[tuple[int, int, bool]],
    num_train: int,
    usable: Callable[[int], bool],
    same_answer: Callable[[int, int], bool],
) -> Iterator[Match]:
    """What the groups of equal `keys` and the near pairs mean. Rows from `num_train` on are the evaluation set's; only `usable` ones count.

    `exact` and `answers` are keys too, of the training rows only: of the question as it is written, and of the answer.
    """
    groups: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        if usable(index):
            groups.setdefault(key, []).append(index)
    told: set[int] = set()
    for rows in groups.values():
        if len(rows) > 1:
            for match in _of_group(rows, exact, answers, num_train, same_answer):
                told.add(match.row)
                yield match
    yield from _of_near(near, num_train, told, usable)


def _of_group(
    rows: list[int],
    exact: Sequence[int],
    answer: Sequence[int],
    num_train: int,
    same_answer: Callable[[int, int], bool],
) -> Iterator[Match]:
    train = [row for row in rows if row < num_train]
    held_out = [row for row in rows if row >= num_train]
    if held_out:
        for row in train:
            yield Match(LEAKAGE, row, held_out[0])
    by_answer: list[list[int]] = []
    for row in train:
        alike = next((each for each in by_answer if answer[each[0]] == answer[row]), None)
        if alike is None and len(by_answer) <= _MAX_COMPARED:
            alike = next((each for each in by_answer if same_answer(each[0], row)), None)
        if alike is None:
            by_answer.append([row])
        else:
            alike.append(row)
    sizes = sorted(map(len, by_answer), reverse=True)
    has_majority = len(sizes) > 1 and sizes[0] > sizes[1]
    for alike in by_answer:
        written: dict[int, int] = {}
        for row in alike:
            if exact[row] in written:
                yield Match(DUPLICATE, row, written[exact[row]])
            elif written:
                yield Match(NEAR, row, alike[0])
            written.setdefault(exact[row], row)
        if len(by_answer) > 1:
            other = next(each[0] for each in by_answer if each is not alike)
            for row in alike:
                yield Match(CONFLICT, row, other, is_minority=not (has_majority and len(alike) == sizes[0]))


def _of_near(
    near: list[tuple[int, int, bool]], num_train: int, told: set[int], usable: Callable[[int], bool]
) -> Iterator[Match]:
    clusters = Clusters()
    leaked: dict[int, int] = {}
    for first, second, _ in near:
        if not (usable(first) and usable(second)):
            continue
        if second < num_train:
            clusters.join(first, second)
        elif first < num_train:
            leaked.setdefault(first, second)
    for first, rows in clusters.members().items():
        yield from (Match(NEAR, row, first) for row in rows if row != first and row not in told)
    yield from (Match(LEAKAGE, row, other) for row, other in leaked.items() if row not in told)


def is_same_answer(first: str, second: str) -> bool:
    """Whether two answers differ in spaces, punctuation, courtesy and endings only. Another word or letter is another answer."""
    return compare(gist_of(first), gist_of(second), _well_known).is_surface


def _well_known(word: str) -> int:
    return ESTABLISHED
