"""Whether two questions are the same one: a pure decision on the two texts.

Their numbers and negations must agree. What else differs is told apart: greetings, spaces, punctuation, endings and typing errors are
surface; other words in place of words are content, and then the texts are only near duplicates if that is a small part of a long text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from finetune.dataset.text import gist, num_negations, numbers, squash, words

MAX_ADDED = 0.3
MAX_CHANGED = 0.25
MAX_REPLACED = 0.1
MAX_DIFFERING = 0.5
"""Share of a text in words that the other has not; above it no look at the words is worth its time."""
_MAX_TWINS = 2500
_MIN_SIZE = 8
ESTABLISHED = 5
"""Rows that have a word, from which on it is one of the set's own: put in place of another, it makes another question of a template."""
_RARE = 2
"""Rows that have a word, up to which it may be a typing error."""
_LONG, _LONG_KOREAN = 5, 4
"""Letters of a word."""
_TAIL = re.compile(
    r"(?:은|는|이|가|을|를|에|의|도|로|으로|와|과|만|에서|에게|까지|부터|요|이요|입니다|인데요?|이에요|예요|하고|하는|한|할|해|해요|했어요|했는데요?|"
    r"합니다|하나요|할까요|되나요|돼요|됩니다|되는|된|될|습니다|어요|아요|네요|나요|까요|는데요?|고|서|면|다|s|es|ed|d|ing|ly|er|rs)?"
)
_SIGN = re.compile(r"(?<=\d)\s*([+*×÷^=<>])\s*(?=\d)|(?<=\d)\s+([-−/])\s+(?=\d)")
HowCommon = Callable[[str], int]
"""In how many rows a word occurs."""


@dataclass(frozen=True, slots=True)
class Gist:
    """What of a text is compared."""

    squashed: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    """With the signs between them."""
    num_negations: int
    size: int
    """Characters of the words that say something."""


def gist_of(text: str, says: Callable[[str], bool] | None = None) -> Gist:
    """`says`: whether a word says something; one that most rows have does not. By default all do."""
    plain = gist(text)
    signs = tuple(sorted(_SIGN.findall(plain))) if any(char in plain for char in "+-*/×÷^=<>−") else ()
    squashed, found = squash(plain), tuple(words(plain))
    size = len(squashed) if says is None else sum(len(word) for word in found if says(word))
    return Gist(squashed, found, (*numbers(plain), *signs), num_negations(plain), size)


@dataclass(frozen=True, slots=True)
class Likeness:
    is_near: bool
    is_surface: bool
    """Whether they differ in nothing that carries content."""


NOT_ALIKE = Likeness(False, False)


def compare(first: Gist, second: Gist, how_common: HowCommon) -> Likeness:
    if first.numbers != second.numbers:
        return NOT_ALIKE
    if first.squashed == second.squashed:
        return Likeness(True, True)
    if not _denies_the_same(first, second, how_common):
        return NOT_ALIKE
    size = max(first.size, second.size)
    if size < _MIN_SIZE:
        return NOT_ALIKE
    removed, added = _differing(first.words, second.words)
    if (
        max(sum(map(len, removed)), sum(map(len, added))) > MAX_DIFFERING * size
        or len(removed) * len(added) > _MAX_TWINS
    ):
        return NOT_ALIKE
    surface, lost, gained, is_slot = _settle(removed, added, how_common)
    replaced, extra = min(lost, gained), abs(lost - gained)
    if replaced and is_slot:
        return NOT_ALIKE
    whole = max(len(first.squashed), len(second.squashed))
    if extra > min(MAX_ADDED * whole, MAX_DIFFERING * size):
        return NOT_ALIKE
    if replaced + extra + surface > (MAX_CHANGED if replaced else MAX_DIFFERING) * size:
        return NOT_ALIKE
    return Likeness(replaced <= MAX_REPLACED * size, replaced == 0)


def _denies_the_same(first: Gist, second: Gist, how_common: HowCommon) -> bool:
    """As many negations, those counted that are mistyped in the other text."""
    more, less = (first, second) if first.num_negations > second.num_negations else (second, first)
    missing = more.num_negations - less.num_negations
    if not missing:
        return True
    denying, others = _differing(more.words, less.words)
    for word in denying:
        twin = next((other for other in others if _is_mistyped(other, word, how_common)), None)
        if twin is not None:
            others.remove(twin)
            missing -= num_negations(word) - num_negations(twin)
    return missing == 0


def _is_mistyped(word: str, meant: str, how_common: HowCommon) -> bool:
    """A word that hardly any row has, one error from a long one. Of short ones an error makes another word: not, now; never, ever."""
    size = _LONG_KOREAN if not meant.isascii() else _LONG
    return len(meant) >= size and word[0] == meant[0] and how_common(word) <= _RARE and is_within(word, meant, 1)


def _differing(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Words that one has and the other has not, in order."""
    return _without(first, Counter(second)), _without(second, Counter(first))


def _without(found: tuple[str, ...], other: Counter[str]) -> list[str]:
    kept = []
    for word in found:
        if other[word] > 0:
            other[word] -= 1
        else:
            kept.append(word)
    return kept


def _settle(removed: list[str], added: list[str], how_common: HowCommon) -> tuple[int, int, int, bool]:
    """How many characters differ on the surface only, are lost, are gained; and whether all words lost and gained are the set's own."""
    if "".join(removed) == "".join(added):
        return 0, 0, 0, False
    surface = 0
    rest = []
    for word in removed:
        twin = next((other for other in added if _could_be(word, other) and is_variant(word, other, how_common)), None)
        if twin is None:
            rest.append(word)
        else:
            added.remove(twin)
            surface += abs(len(word) - len(twin)) + 1
    if rest and added and is_variant("".join(rest), "".join(added), how_common):
        return surface + abs(sum(map(len, rest)) - sum(map(len, added))) + 1, 0, 0, False
    is_slot = all(how_common(word) >= ESTABLISHED for word in (*rest, *added))
    return surface, sum(map(len, rest)), sum(map(len, added)), is_slot


def _could_be(first: str, second: str) -> bool:
    return first[0] == second[0] or first[-1] == second[-1]


def is_variant(first: str, second: str, how_common: HowCommon) -> bool:
    """The same word with another ending, or mistyped. A mistyped word is one that hardly any other row has."""
    shared = _shared_prefix(first, second)
    if (
        shared >= (2 if not first.isascii() else 3)
        and _TAIL.fullmatch(first[shared:])
        and _TAIL.fullmatch(second[shared:])
    ):
        return True
    size = min(len(first), len(second))
    limit = 2 if size >= 7 else 1
    if size < 2 or abs(len(first) - len(second)) > limit or not _could_be(first, second):
        return False
    if first.isdigit() or second.isdigit() or min(how_common(first), how_common(second)) > _RARE:
        return False
    return is_within(first, second, limit)


def _shared_prefix(first: str, second: str) -> int:
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


def is_within(first: str, second: str, limit: int) -> bool:
    """Whether so many insertions, deletions, replacements and swaps of neighbours suffice."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        after = [i]
        for j, b in enumerate(second, 1):
            best = min(row[j] + 1, after[j - 1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                best = min(best, before[j - 2] + 1)
            after.append(best)
        if min(after) > limit:
            return False
        before, row = row, after
    return row[-1] <= limit
