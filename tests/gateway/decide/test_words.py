"""Both languages say the same things, and what the article says of cost and time."""

from __future__ import annotations

import re

import pytest

from gateway.cli import COMMANDS
from gateway.decide.chart import Outcome, Question
from gateway.decide.words import ENGLISH, KOREAN, WORDS, Words, language_of
from tests.gateway.decide.test_chart import FLOW_CHART

BOTH = pytest.mark.parametrize("words", [*WORDS.values()], ids=[*WORDS])


@BOTH
def test_nothing_is_left_unsaid(words: Words) -> None:
    assert [*words.questions] == [*words.reasons] == [*Question]
    assert [*words.outcomes] == [*Outcome]
    assert len(words.cases) == 4
    assert all(named.next for named in words.outcomes.values())
    other = WORDS[ENGLISH]
    assert (words.labels.keys(), words.plan.keys(), len(words.table)) == (
        other.labels.keys(),
        other.plan.keys(),
        len(other.table),
    )
    assert all(cell for row in words.table for cell in row)


def test_the_questions_are_the_articles_own() -> None:
    asked = [match.replace("<br/>", " ") for match in re.findall(r"Q\d\{(.+?)\}", FLOW_CHART)]
    assert [*WORDS[KOREAN].questions.values()] == asked


def test_times_are_the_articles_own() -> None:
    assert [named.time for named in WORDS[KOREAN].outcomes.values()] == ["1-2일", "1-2주", "2-4주", "1-3일"]
    assert re.findall(r"시간: (\S+?)\]", FLOW_CHART) == ["1-2일", "1-2주", "2-4주", "1-3일"]


@BOTH
def test_commands_that_are_named_exist(words: Words) -> None:
    said = " ".join(text for named in words.outcomes.values() for text in named.next)
    named = set(re.findall(r"forgegate (\w+)", said))
    assert named >= {"chat", "data", "train", "quantize", "bench"}
    assert named <= COMMANDS.keys()


@pytest.mark.parametrize(
    ("env", "language"),
    [
        ({}, ENGLISH),
        ({"LANG": "ko_KR.UTF-8"}, KOREAN),
        ({"LANG": "en_US.UTF-8"}, ENGLISH),
        ({"LC_ALL": "C", "LANG": "ko_KR.UTF-8"}, ENGLISH),
        ({"LC_ALL": "", "LC_MESSAGES": "ko", "LANG": "C"}, KOREAN),
    ],
)
def test_the_language_is_the_terminals(env: dict[str, str], language: str) -> None:
    assert language_of(env) == language
