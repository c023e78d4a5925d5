"""Rows that others are made after, and which of them a request shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from finetune.dataset.errors import DataUnusable
from finetune.dataset.row import Row
from finetune.dataset.text import language


@dataclass(frozen=True, slots=True)
class Seed:
    number: int
    """Of the row."""
    system: str
    question: str
    answer: str

    @property
    def language(self) -> str:
        """Of the question; empty where there are too few letters to tell."""
        return language(self.question)


@dataclass(frozen=True, slots=True)
class Shots:
    """What one request shows: seeds with one system prompt and of one language."""

    seeds: tuple[Seed, ...]

    @property
    def system(self) -> str:
        return self.seeds[0].system

    @property
    def language(self) -> str:
        return self.seeds[0].language


class Seeds:
    """By system prompt and language, as they are shown together."""

    def __init__(self, seeds: Sequence[Seed]) -> None:
        """Raises DataUnusable where there are none."""
        if not seeds:
            raise DataUnusable("none of the rows is a seed: one question and one answer, without calls of tools")
        self.all = tuple(seeds)
        groups: dict[tuple[str, str], list[Seed]] = {}
        for seed in seeds:
            groups.setdefault((seed.system, seed.language), []).append(seed)
        self._groups = [*groups.values()]

    def shots(self, request: int, num_shots: int, seed: int) -> Shots:
        """Of the request with that number, whoever asks: groups by their size, seeds of one without repetition."""
        rng = Random(f"{seed}/{request}")
        (group,) = rng.choices(self._groups, [len(each) for each in self._groups])
        return Shots(tuple(rng.sample(group, min(num_shots, len(group)))))


def seeds_of(rows: Iterable[Row]) -> tuple[list[Seed], int]:
    """The seeds, and how many rows are none: several exchanges, calls of tools, or a part that is empty."""
    found, num_others = [], 0
    for row in rows:
        question, answer = row.question.strip(), row.answer.strip()
        is_one = row.num_exchanges == 1 and not any(turn.has_calls for turn in row.turns) and not row.problems
        if is_one and question and answer:
            found.append(Seed(row.number, row.system.strip(), question, answer))
        else:
            num_others += 1
    return found, num_others
