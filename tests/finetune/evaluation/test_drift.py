"""What changed in answers beside their scores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune.evaluation.drift import changes, features, is_json, is_list, is_other_language
from finetune.evaluation.items import Answer, Item

ENGLISH = "The delivery will arrive tomorrow in the morning."
KOREAN = "배송은 내일 아침에 도착할 예정입니다. 감사합니다."


def asked(text: str, num: int = 20) -> list[Item]:
    return [Item(str(place), "c", "", ({"role": "user", "content": text},)) for place in range(num)]


def said(text: str, num: int = 20, finish: str = "stop") -> list[Answer]:
    return [Answer(text, finish, 5, len(text))] * num


def test_features_are_shares_of_the_answers() -> None:
    answers = [
        *said(KOREAN, 5),
        *said(ENGLISH, 10),
        *said('{"a": 1}', 2),
        *said("1. one\n2. two", 2),
        *said(" ", 1, "length"),
    ]
    found = features(asked("When will my parcel arrive?"), answers)
    assert (found.num, found.other_language, found.json, found.lists) == (20, 0.25, 0.1, 0.1)
    assert (found.cut, found.empty, found.repetitive) == (0.05, 0.05, 0.0)
    assert (found.median_chars, found.mean_tokens) == (38.5, 33.65)
    loops = features(asked("Hi"), said("I am here to help you. " * 30))
    assert loops.repetitive == 1.0


def test_what_changed_is_told_and_what_did_not_is_not() -> None:
    live = features(asked(ENGLISH), said(ENGLISH))
    assert list(changes(live, live)) == []
    found = {
        one.feature: one for one in changes(live, features(asked(ENGLISH), said('{"status": "shipped tomorrow"}')))
    }
    assert set(found) == {"json"}
    assert found["json"].words == "answers that are JSON: 0% before, 100% now"
    short = list(changes(live, features(asked(ENGLISH), said("Tomorrow."))))
    assert [one.words for one in short] == ["length: 49 characters before, 9 now (median)"]


def test_of_few_answers_nothing_is_told() -> None:
    live = features(asked(ENGLISH, 19), said(ENGLISH, 19))
    assert list(changes(live, replace(live, json=1.0))) == []


def test_changes_below_the_bounds_are_none() -> None:
    live = features(asked(ENGLISH), said(ENGLISH))
    assert [one.feature for one in changes(live, replace(live, lists=0.09, median_chars=live.median_chars * 1.9))] == []
    assert [one.feature for one in changes(live, replace(live, lists=0.11))] == ["lists"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("- a\n- b", True), ("1. a\n\n2) b", True), ("* one", False), ("1.5 and\n2.5", False), ("a - b\nc - d", False)],
)
def test_lists(text: str, wanted: bool) -> None:
    assert is_list(text) is wanted


@pytest.mark.parametrize(("text", "wanted"), [('{"a": 1}', True), (" [1]\n", True), ("1", False), ("{a}", False)])
def test_json(text: str, wanted: bool) -> None:
    assert is_json(text) is wanted


@pytest.mark.parametrize(
    ("question", "answer", "wanted"),
    [
        (KOREAN, ENGLISH, True),
        (KOREAN, KOREAN, False),
        (ENGLISH, "OK", False),
        ("Hi", KOREAN, False),
        (KOREAN, '{"status": "delivered tomorrow"}', False),
    ],
)
def test_another_language_is_one_that_can_be_told(question: str, answer: str, wanted: bool) -> None:
    assert is_other_language(question, answer) is wanted
