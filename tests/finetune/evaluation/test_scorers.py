"""Each scorer of the table."""

from __future__ import annotations

import pytest

from finetune.evaluation.scorers import SCORERS, Given, chosen

TICKET = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "order": {"type": "integer"}},
    "required": ["name", "order"],
    "additionalProperties": False,
}


def score(name: str, expected: str, answer: str, given: Given | None = None) -> float:
    return SCORERS[name].score(expected, answer, given or Given())


@pytest.mark.parametrize(
    ("name", "expected", "answer", "wanted"),
    [
        ("exact", "Seoul", " Seoul\n", 1),
        ("exact", "Seoul", "seoul", 0),
        ("exact", "가", "가", 1),  # composed and decomposed
        ("contains", "Seoul", "It is SEOUL.", 1),
        ("contains", "서울", "한국의 수도는 서울입니다.", 1),
        ("contains", "Seoul", "It is Busan.", 0),
        ("contains", " ", "anything", 0),
        ("json_fields", '{"a": 1, "b": {"c": [2, 3]}}', '{"b": {"c": [2, 3]}, "a": 1}', 1),
        ("json_fields", '{"a": 1, "b": 2}', '{"a": 1, "b": 3}', 0.5),
        ("json_fields", '{"a": 1, "b": 2}', '{"a": 1}', 2 / 3),  # what lacks counts
        ("json_fields", '{"a": 1}', '{"a": 1, "x": 0}', 2 / 3),  # so does what is too much
        ("json_fields", '{"a": 1}', '{"a": true}', 0),
        ("json_fields", '{"a": 1}', '{"a": 1.0}', 1),
        ("json_fields", '{"a": 1}', 'Sure: {"a": 1}', 0),
        ("json_fields", '{"a": 1}', '{"a": 2, "a": 1}', 0),
        ("json_fields", '{"a": 1}', "[1]", 0),
        ("json_fields", "{}", "{}", 1),
        ("f1", "the cat sat", "the cat", 0.8),
        ("rouge_l", "a b", "b a", 0.5),
    ],
)
def test_scores(name: str, expected: str, answer: str, wanted: float) -> None:
    assert score(name, expected, answer) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ('{"name": "Kim", "order": 12}', 1),
        (' {"name": "김", "order": 12}\n', 1),
        ('{"name": "Kim", "order": 12.0}', 1),
        ('{"name": "Kim", "order": 12.5}', 0),
        ('{"name": "Kim"}', 0),
        ('{"name": "Kim", "order": 12, "more": 1}', 0),
        ('{"name": "Kim", "name": "Lee", "order": 12}', 0),
        ('```json\n{"name": "Kim", "order": 12}\n```', 0),
        ('{"name": "Kim", "order": NaN}', 0),
        ("[" * 100_000, 0),
    ],
)
def test_an_answer_that_follows_a_schema_is_that_and_nothing_else(answer: str, wanted: float) -> None:
    assert score("json_schema", "", answer, Given(schema=TICKET)) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("refund", "refund"),
        ("Refund.", "refund"),
        ("The category is **refund**.", "refund"),
        ("refund or delivery", "refund"),  # it begins with one
        ("either a refund or a delivery", None),
        ("refunded", None),
        ("배송 문의입니다", None),
        ("", None),
    ],
)
def test_the_choice_that_an_answer_names(answer: str, wanted: str | None) -> None:
    assert chosen(answer, ("refund", "delivery", "other")) == wanted


def test_a_korean_choice_may_carry_a_particle() -> None:
    given = Given(choices=("환불", "배송", "기타"))
    assert score("choice", "환불", "환불입니다.", given) == 1
    assert score("choice", "환불", "이 문의는 배송에 관한 것입니다", given) == 0


def test_the_longest_of_choices_that_lie_in_each_other_counts() -> None:
    assert chosen("very good", ("good", "very good")) == "very good"
    assert chosen("it was very good indeed", ("good", "very good")) == "very good"
    assert chosen("it was good", ("good", "very good")) == "good"
