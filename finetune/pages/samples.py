"""Answers that changed: the worst losses, the best gains, and some that score the same in other words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.pages.markup import block, name, text

NUM_LOST, NUM_GAINED, NUM_EQUAL = 12, 8, 5
_MOST_CHARS = 4000
_TITLE_CHARS = 120


@dataclass(frozen=True, slots=True)
class Sample:
    task: str
    item: str
    question: str
    expected: str
    live: str
    candidate: str
    live_score: float
    candidate_score: float

    @property
    def change(self) -> float:
        return self.candidate_score - self.live_score


def changed(lines: Sequence[Mapping[str, Any]], candidate: int) -> tuple[list[Sample], int]:
    """Of one model against the first; and how many changed in all. Tasks take turns, so that none is left out."""
    found = [sample for sample in (_sample(line, candidate) for line in lines) if sample.live != sample.candidate]
    lost = sorted((one for one in found if one.change < 0), key=lambda one: one.change)
    gained = sorted((one for one in found if one.change > 0), key=lambda one: -one.change)
    equal = [one for one in found if one.change == 0]
    picked = [
        *_in_turns(lost, NUM_LOST), *_in_turns(gained, NUM_GAINED), *_in_turns(equal, NUM_EQUAL),
    ]  # fmt: skip
    return picked, len(found)


def _in_turns(samples: Sequence[Sample], num: int) -> list[Sample]:
    by_task: dict[str, list[Sample]] = {}
    for one in samples:
        by_task.setdefault(one.task, []).append(one)
    picked: list[Sample] = []
    place = 0
    while len(picked) < min(num, len(samples)):
        picked += [rows[place] for rows in by_task.values() if place < len(rows)][: num - len(picked)]
        place += 1
    return picked


def _sample(line: Mapping[str, Any], candidate: int) -> Sample:
    live, other = line["answers"][0], line["answers"][candidate]
    return Sample(
        str(line["task"]), str(line["id"]), str(line["question"]), str(line["expected"]), str(live["text"]), str(other["text"]),
        float(live["score"]), float(other["score"]),
    )  # fmt: skip


def parts(samples: Sequence[Sample], total: int, names: tuple[str, str]) -> Iterator[str]:
    """HTML."""
    if not samples:
        yield '<p class="soft">No answer changed.</p>'
        return
    yield f'<p class="soft">{total:,} answers are not what they were; {len(samples)} of them, the largest losses first.</p>'
    for one in samples:
        yield from _part(one, names)


def _part(one: Sample, names: tuple[str, str]) -> Iterator[str]:
    word, style = (
        ("lost", "bad") if one.change < 0 else ("gained", "good") if one.change > 0 else ("same score", "soft")
    )
    title = " ".join(one.question.split()) or one.item
    title = title if len(title) <= _TITLE_CHARS else f"{title[: _TITLE_CHARS - 1]}…"
    yield f'<details class="sample"><summary><span class="tag {style}">{word}</span> {name(one.task)} '
    yield f'<bdi class="soft">{text(title)}</bdi></summary>'
    yield f"<h4>Question</h4>{block(one.question, _MOST_CHARS)}"
    if one.expected:
        yield f"<h4>Expected</h4>{block(one.expected, _MOST_CHARS)}"
    yield '<div class="pair">'
    for who, said, score in zip(names, (one.live, one.candidate), (one.live_score, one.candidate_score), strict=True):
        yield f"<div><h4>{name(who)}, score {100 * score:.0f} %</h4>{block(said, _MOST_CHARS)}</div>"
    yield "</div></details>"
