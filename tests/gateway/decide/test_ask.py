"""The questions, as a user answers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from gateway.decide.ask import Quit, ask, ask_text
from gateway.decide.chart import Outcome, Question, Way
from gateway.decide.words import WORDS, Words

EN, KO = WORDS["en"], WORDS["ko"]


def typed(*lines: str) -> Callable[[str], str]:
    """Then the end of input."""
    left: Iterator[str] = iter(lines)

    def read(_: str) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    return read


def asked(lines: list[str], given: Mapping[Question, bool] | None = None, words: Words = EN) -> tuple[Way, list[str]]:
    told: list[str] = []
    return ask(given or {}, words, typed(*lines), told.append), told


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["y"], Outcome.PROMPTING),
        (["n", "y"], Outcome.RAG),
        (["no", "No", "YES"], Outcome.FINE_TUNING),
        (["아니요", "아니오", "ㄴ", "네"], Outcome.FINE_TUNING),
        (["n", "n", "n", "n", "예"], Outcome.OPTIMISATION),
        (["n", "n", "n", "n", "n"], Outcome.RAG),
    ],
)
def test_the_answers_lead_to_an_outcome(lines: list[str], outcome: Outcome) -> None:
    way, told = asked(lines)
    assert way.end == outcome
    assert [text.strip() for text in told] == [
        f"{n}. {text}" for n, text in enumerate([*EN.questions.values()][: len(lines)], 1)
    ]


def test_back_takes_an_answer_back() -> None:
    way, told = asked(["n", "n", "b", "b", "y"])
    assert way == Way(((Question.PROMPTING, True),), Outcome.PROMPTING)
    assert [text.strip()[0] for text in told] == ["1", "2", "3", "2", "1"]


def test_before_the_first_question_there_is_none() -> None:
    _, told = asked(["b", "y"])
    assert EN.labels["first"] in told


def test_what_flags_say_is_neither_asked_nor_taken_back() -> None:
    way, told = asked(["b", "n", "뒤로", "y"], {Question.PROMPTING: False}, KO)
    assert way.end == Outcome.RAG
    assert not any(KO.questions[Question.PROMPTING] in text for text in told)
    way, told = asked(["n", "b", "y"], {Question.DOCUMENTS: False})
    assert way.end == Outcome.PROMPTING
    assert [text.strip()[:2] for text in told] == ["1.", "3.", "1."]


def test_anything_else_is_asked_again_and_why_is_told() -> None:
    way, told = asked(["maybe", "", "?", "y"])
    assert way.end == Outcome.PROMPTING
    assert [text.strip() for text in told[1:]] == [
        EN.labels["unknown"],
        EN.labels["unknown"],
        EN.reasons[Question.PROMPTING],
    ]


@pytest.mark.parametrize("lines", [["q"], ["n", "quit"], ["종료"], ["n"]])
def test_quit_and_the_end_of_input_end_it(lines: list[str]) -> None:
    with pytest.raises(Quit):
        asked(lines)


def test_texts_have_a_default() -> None:
    assert ask_text("Rows?", "5000", typed("")) == "5000"
    assert ask_text("Rows?", "5000", typed(" 200 ")) == "200"
    for end in (typed("q"), typed()):
        with pytest.raises(Quit):
            ask_text("Rows?", "5000", end)
