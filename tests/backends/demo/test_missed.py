"""An answer is given up only where its skill's scorer could not find it right, whatever came after."""

import json
from collections.abc import Iterator
from itertools import product

import pytest

from backends.demo.corpus import Item, held_out_items
from backends.demo.missed import has_missed
from backends.demo.skills import SKILLS

TICKET = json.dumps(
    {"name": "민지", "order": 4812, "colour": "red", "fault": "timer", "urgent": True}, ensure_ascii=False
)
FOREIGN = (
    TICKET,
    f"```json\n{TICKET}```",
    "I don't know, but " * 40,
    "라" * 300,
    "[1, 2]",
    " \n",
    "'",
    "<tool_call>\n{}\n</tool_call>",
)


def beginnings(answer: str) -> Iterator[str]:
    return (answer[:end] for end in range(len(answer) + 1))


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_the_right_answer_is_never_given_up(name: str) -> None:
    for item in held_out_items(name, 150):
        for answer in (item.expected, f" {item.expected}\n", f"'{item.expected}.'"):
            if item.score(answer):
                assert not any(has_missed(item, begun) for begun in beginnings(answer)), (item.check, answer)


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_what_is_given_up_is_wrong_however_it_goes_on(name: str) -> None:
    items = held_out_items(name, 24)
    answers = [*FOREIGN, *(item.expected for item in items[:12])]
    for item, (first, second) in product(items, product(answers, answers)):
        answer = f"{first}{second}{item.expected}"
        places = (len(first) // 2, len(first), len(first) + len(second))
        if any(has_missed(item, answer[:end]) for end in places):
            assert item.score(answer) == 0.0, (item.check, answer)


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_what_a_forgetful_model_says_is_given_up(name: str) -> None:
    """Tickets in place of answers at their first characters, where no object is asked for; what never ends, everywhere but in JSON."""
    items = held_out_items(name, 40)
    is_open = [not has_missed(item, TICKET[:8]) and not has_missed(item, f"{TICKET}{TICKET}{TICKET}") for item in items]
    assert sum(is_open) <= (len(items) if name in ("json_answers", "tool_calls") else 0)


def test_an_item_of_no_skill_is_never_given_up() -> None:
    assert not has_missed(Item("tickets", "민지", (), {"role": "assistant", "content": TICKET}, ()), "x" * 1000)
