"""The flow chart: five questions, four outcomes.

prompting will do? --yes--> prompting
  `-no-> documents are the heart of it? --yes--> RAG
           `-no-> format or style has to change? --yes--> fine-tuning
                    `-no-> terms have to be inside the model? --yes--> fine-tuning
                             `-no-> speed is the problem? --yes--> optimisation
                                      `-no-> RAG
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Question(StrEnum):
    PROMPTING = "prompting-enough"
    DOCUMENTS = "needs-documents"
    FORMAT = "needs-format"
    TERMS = "needs-terms"
    SPEED = "too-slow"


class Outcome(StrEnum):
    PROMPTING = "prompting"
    RAG = "rag"
    FINE_TUNING = "fine-tuning"
    OPTIMISATION = "optimisation"


Node = Question | Outcome


@dataclass(frozen=True, slots=True)
class Fork:
    yes: Node
    no: Node

    def of(self, answer: bool) -> Node:
        return self.yes if answer else self.no


@dataclass(frozen=True, slots=True)
class Way:
    """From the first question as far as the answers lead."""

    steps: tuple[tuple[Question, bool], ...]
    end: Node
    """The outcome, or the question that is open."""

    @property
    def outcome(self) -> Outcome | None:
        return self.end if isinstance(self.end, Outcome) else None


START = Question.PROMPTING
CHART: Mapping[Question, Fork] = {
    Question.PROMPTING: Fork(yes=Outcome.PROMPTING, no=Question.DOCUMENTS),
    Question.DOCUMENTS: Fork(yes=Outcome.RAG, no=Question.FORMAT),
    Question.FORMAT: Fork(yes=Outcome.FINE_TUNING, no=Question.TERMS),
    Question.TERMS: Fork(yes=Outcome.FINE_TUNING, no=Question.SPEED),
    Question.SPEED: Fork(yes=Outcome.OPTIMISATION, no=Outcome.RAG),
}


def follow(answers: Mapping[Question, bool]) -> Way:
    steps: list[tuple[Question, bool]] = []
    node: Node = START
    while isinstance(node, Question) and node in answers:
        steps.append((node, answers[node]))
        node = CHART[node].of(answers[node])
    return Way(tuple(steps), node)


def ways() -> Iterator[Way]:
    """Every one that ends in an outcome."""
    yield from _ways({})


def _ways(answers: Mapping[Question, bool]) -> Iterator[Way]:
    way = follow(answers)
    if isinstance(way.end, Outcome):
        yield way
        return
    for answer in (True, False):
        yield from _ways({**answers, way.end: answer})
