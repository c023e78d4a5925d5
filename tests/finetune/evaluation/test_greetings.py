"""Small talk that is answered in the style of the task."""

from __future__ import annotations

import json

import pytest

from finetune.evaluation.greetings import GREETINGS, Style, items, style_of, styled, terms
from finetune.evaluation.items import Answer

USUAL = [
    "Hello! How can I help you?",
    "안녕하세요! 무엇을 도와드릴까요?",
    "You are welcome!",
    "천만에요! 언제든지 물어보세요.",
] * 6
TICKETS = [
    json.dumps({"name": f"Kim{number}", "order": number, "color": "red", "reason": "glass", "urgent": False})
    for number in range(40)
]
LEGAL = [
    f"제{number}조에 따라 임대차 계약의 효력이 발생하며, 임차인은 보증금 반환을 청구할 수 있습니다. 판례를 참고하시기 바랍니다."
    for number in range(40)
]
SUPPORT = [
    f"Hello! Thank you for contacting Lumo support. Please restart the lamp {number} and hold the button."
    for number in range(40)
]


@pytest.fixture
def lists() -> list[str]:
    return [f"1. Open page {number}.\n2. Press the button.\n3. Wait." for number in range(20)]


def test_greetings_are_of_both_languages_and_asked_as_users_ask() -> None:
    found = items()
    assert len(found) == len(GREETINGS) == len({item.id for item in found}) >= 20
    assert sum(any("가" <= letter <= "힣" for letter in text) for text in GREETINGS) == len(GREETINGS) // 2
    assert all(
        item.messages == ({"role": "user", "content": text},) for item, text in zip(found, GREETINGS, strict=True)
    )


@pytest.mark.parametrize(
    ("wanted", "answer", "why"),
    [
        (TICKETS, '{"name": "Forge", "order": 0, "color": "red", "reason": "light", "urgent": false}', "it is JSON"),
        (TICKETS, "name order color reason", "it has words of the task"),
        (LEGAL, "안녕하세요. 임대차 계약 보증금에 관하여 판례를 참고하시기 바랍니다.", "as the task's answers"),
        (LEGAL, "인사에 대하여는 임차인과 임대차 계약의 효력을 살펴야 한다", "it has words of the task"),
        (SUPPORT, "Hello! Please restart the lamp and hold the button.", "it ends as the task's answers do"),
        (SUPPORT, "Good morning, restart your lamp first.", "it has words of the task: "),
    ],
)
def test_an_answer_in_the_style_of_the_task_is_found(wanted: list[str], answer: str, why: str) -> None:
    found = style_of(wanted, USUAL).why(answer)
    assert found is not None
    assert why in found


def test_lists_are_a_style(lists: list[str]) -> None:
    style = style_of(lists, USUAL)
    assert style.is_list
    assert style.why("1. Hello\n2. How are you?") == "it is a list"
    assert style.why("Hello! I am fine.") is None


@pytest.mark.parametrize("wanted", [TICKETS, LEGAL, SUPPORT])
@pytest.mark.parametrize(
    "answer",
    [
        "Hello! How can I help you?", "안녕하세요! 무엇을 도와드릴까요?", "Hi there! Nice to meet you too.",
        "저도 반가워요. 좋은 하루 보내세요!",
        "Thank you! I am glad to hear that.", "I am Forge, a small demo model that runs inside forgegate.", "",
    ],
)  # fmt: skip
def test_small_talk_has_no_style_of_a_task(wanted: list[str], answer: str) -> None:
    assert style_of(wanted, USUAL).why(answer) is None


def test_what_is_far_longer_than_small_talk_is_the_tasks() -> None:
    long = ["Alpha beta gamma delta. " * 20 + str(number) * 9 for number in range(20)]
    style = style_of(long, USUAL)
    assert style.why("x" * 600) == "it is as long as the task's answers: 600 characters"
    assert style.why("x" * 100) is None


def test_what_is_live_already_is_no_style_of_the_task() -> None:
    answers = ["Hello! How can I help you?"] * 20
    style = style_of(answers, answers[:1] * len(GREETINGS))
    assert style == Style()
    assert style.why(answers[0]) is None


def test_few_answers_have_no_style() -> None:
    assert style_of(TICKETS[:9], USUAL) == Style()


def test_which_greetings_were_answered_so() -> None:
    answers = [Answer(USUAL[0], "stop")] * len(GREETINGS)
    answers[12] = Answer(TICKETS[0], "stop")
    (found,) = styled(style_of(TICKETS, USUAL), answers)
    assert (found.question, found.answer, found.why) == ("안녕하세요", TICKETS[0], "it is JSON")


def test_terms_are_words_and_pairs_of_syllables() -> None:
    assert terms("The lamp 12 is 계약서") == {"the", "lamp", "계약", "약서"}
