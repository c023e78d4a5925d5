"""Texts that go in circles: loops of a phrase, one sentence again and again, one word in place of all others."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from finetune.dataset.text import sentences, squash, words

_MAX_PERIOD = 160
_MIN_LOOP_CHARS = 24
_GRAM = 6
_LETTER = re.compile(r"[^\W\d_]")
_MAX_WORD_SHARE = 0.3
"""The article's bound, for texts of more than 10 words."""


def why_repetitive(text: str) -> str | None:
    """What a text repeats; None where it does not. Long texts are judged by their first and last 4,000 characters."""
    if len(text) < 16:
        return _short_loop(text)
    if len(text) > 8000:
        text = text[:4000] + text[-4000:]
    if word := _dominant_word(text):
        return f"the word {word!r} is more than {_MAX_WORD_SHARE:.0%} of it"
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if _distinct_share(codes) > 0.85:
        return None
    if loop := _loop(text, codes):
        return f"{loop[:40]!r} over and over"
    return _repeated_sentence(text)


def _short_loop(text: str) -> str | None:
    """`네네네네네네`: at least six times the same letters and nothing else."""
    found = re.fullmatch(r"\s*(\S{1,2}?)(?:\s?\1){5,}\s*", text)
    return f"{found[1]!r} over and over" if found and _LETTER.search(found[1]) else None


def _dominant_word(text: str) -> str | None:
    found = [word.casefold() for word in words(text) if not word.isdigit()]
    if len(found) <= 10 or "```" in text or text.lstrip()[:1] in ("{", "[", "<", "|"):
        return None
    word, count = Counter(found).most_common(1)[0]
    return word if count > _MAX_WORD_SHARE * len(found) and (len(word) > 1 or not word.isascii()) else None


def _distinct_share(codes: NDArray[np.uint32]) -> float:
    """How many of the runs of six characters are different ones."""
    if len(codes) <= _GRAM:
        return 1.0
    wide = codes.astype(np.uint64)
    grams = np.zeros(len(codes) - _GRAM + 1, dtype=np.uint64)
    for offset in range(_GRAM):
        grams = grams * np.uint64(1_000_003) + wide[offset : offset + len(grams)]
    return len(np.unique(grams)) / len(grams)


def _loop(text: str, codes: NDArray[np.uint32]) -> str | None:
    """A phrase with letters that follows itself at least three times and fills a quarter of the text, or 200 characters."""
    for period in range(1, min(_MAX_PERIOD, len(codes) // 3) + 1):
        length, start = _longest_run(codes[period:] == codes[:-period])
        if length == 0:
            continue
        length += period
        phrase = text[start : start + period]
        is_long = length >= max(_MIN_LOOP_CHARS, 4 * period if period < 8 else 3 * period)
        if is_long and (length >= 0.25 * len(text) or length >= 200) and _LETTER.search(phrase):
            return phrase.strip()
    return None


def _longest_run(same: NDArray[np.bool_]) -> tuple[int, int]:
    """Length and start of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    if not len(edges):
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    best = int(np.argmax(lengths))
    return int(lengths[best]), int(edges[2 * best])


def _repeated_sentence(text: str) -> str | None:
    parts = [(squash(part), part) for part in sentences(text)]
    counts = Counter(key for key, _ in parts if len(key) >= 8)
    if not counts:
        return None
    key, count = counts.most_common(1)[0]
    size = sum(len(each) for each, _ in parts)
    if count >= 3 and count * len(key) >= 0.3 * size:
        return f"{next(part for each, part in parts if each == key)[:40]!r} {count} times"
    return None
