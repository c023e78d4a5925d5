"""What else changed in the answers: length, repetition, language, lists, JSON, ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

from finetune.dataset.repetition import why_repetitive
from finetune.dataset.text import language
from finetune.evaluation.items import Answer, Item
from finetune.evaluation.schema import loads_strictly

_LIST_LINE = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*•])\s+\S", re.MULTILINE)
MIN_SHARE = 0.10
"""A share of answers that changed by less is nothing to tell."""
MIN_RATIO = 2.0
"""A median length that changed by less is not either."""
MIN_ITEMS = 20
"""Of fewer answers shares say little."""


@dataclass(frozen=True, slots=True)
class Features:
    """Of a model's answers to some items; shares in [0, 1]."""

    num: int
    median_chars: float
    mean_tokens: float | None
    """None where the endpoint counts none."""
    repetitive: float
    other_language: float
    """In another language than the question."""
    lists: float
    json: float
    """JSON objects or lists, and nothing else."""
    cut: float
    """Ended by the budget, not by themselves."""
    empty: float


SHARES: Mapping[str, str] = {
    "repetitive": "answers that repeat themselves",
    "other_language": "answers in another language than the question",
    "lists": "answers that are lists",
    "json": "answers that are JSON",
    "cut": "answers that do not end by themselves",
    "empty": "empty answers",
}


@dataclass(frozen=True, slots=True)
class Change:
    """Of a feature, from what is live to another model."""

    feature: str
    live: float
    candidate: float
    words: str


def features(items: Sequence[Item], answers: Sequence[Answer]) -> Features:
    """Of at least one answer."""
    texts = [answer.text for answer in answers]
    counts = [answer.num_tokens for answer in answers if answer.num_tokens is not None]
    return Features(
        num=len(texts),
        median_chars=float(median(map(len, texts))),
        mean_tokens=fmean(counts) if counts else None,
        repetitive=fmean(why_repetitive(text) is not None for text in texts),
        other_language=fmean(
            is_other_language(item.question, answer.text) for item, answer in zip(items, answers, strict=True)
        ),
        lists=fmean(map(is_list, texts)),
        json=fmean(map(is_json, texts)),
        cut=fmean(answer.finish == "length" for answer in answers),
        empty=fmean(not text.strip() for text in texts),
    )


def changes(live: Features, candidate: Features) -> Iterator[Change]:
    """Those that are worth telling."""
    if min(live.num, candidate.num) < MIN_ITEMS:
        return
    shares = (asdict(live), asdict(candidate))
    for name, words in SHARES.items():
        before, after = float(shares[0][name]), float(shares[1][name])
        if abs(after - before) >= MIN_SHARE:
            yield Change(name, before, after, f"{words}: {before:.0%} before, {after:.0%} now")
    before, after = live.median_chars, candidate.median_chars
    if max(before, after) >= MIN_RATIO * max(1.0, min(before, after)):
        yield Change("median_chars", before, after, f"length: {before:.0f} characters before, {after:.0f} now (median)")


def is_list(text: str) -> bool:
    """At least two lines that begin as items of a list do."""
    return len(_LIST_LINE.findall(text)) >= 2


def is_json(text: str) -> bool:
    """An object or a list, and nothing around it."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(loads_strictly(text), dict | list)
    except ValueError:
        return False


def is_other_language(question: str, answer: str) -> bool:
    """Both have enough letters to tell, and the answer is in none of the question's. JSON is in none: its keys are what was agreed."""
    if is_json(answer):
        return False
    asked, said = language(question), language(answer)
    return bool(asked and said) and said not in (asked, "mixed") and asked != "mixed"
