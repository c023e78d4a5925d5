"""A model as judge, in both orders."""

from __future__ import annotations

import pytest

from finetune.evaluation.items import Answer, Item
from finetune.evaluation.judge import DEFAULT_RUBRIC, Outcome, pair_items, prompt, read, rulings, summary

ITEM = Item(
    "1", "c", "Paris", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"})
)


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("The first is right. [[1]]", "first"),
        ("[[1]] at first sight, but no: [[ 2 ]]", "second"),
        ("Both. [[TIE]]", "tie"),
        ("The first one.", None),
        ("[1]", None),
        ("[[3]]", None),
    ],
)
def test_the_last_verdict_counts(reply: str, wanted: str | None) -> None:
    assert read(reply) == wanted


def test_each_pair_is_shown_in_both_orders_with_question_rubric_and_reference() -> None:
    one, other = pair_items("Be strict.", [ITEM], [Answer("Lyon", "stop")], [Answer("Paris {x}", "stop")])
    first, second = (str(item.messages[0]["content"]) for item in (one, other))
    assert first == prompt("Be strict.", ITEM, "Lyon", "Paris {x}")
    assert second == prompt("Be strict.", ITEM, "Paris {x}", "Lyon")
    for text in (first, second):
        assert "Be strict." in text
        assert "user: Capital of France?" in text
        assert "<reference_answer>\nParis\n" in text
    assert one.id != other.id


def test_without_an_expected_answer_there_is_no_reference() -> None:
    assert "reference_answer" not in prompt(DEFAULT_RUBRIC, Item("1", "c", "", ITEM.messages), "a", "b")


@pytest.mark.parametrize(
    ("forward", "backward", "outcome", "is_consistent", "is_clear"),
    [
        ("[[2]]", "[[1]]", "candidate", True, True),
        ("[[1]]", "[[2]]", "live", True, True),
        ("[[tie]]", "[[tie]]", "tie", True, True),
        ("[[1]]", "[[1]]", "tie", False, True),  # it prefers a place
        ("[[2]]", "[[tie]]", "tie", False, True),
        ("[[2]]", "dunno", "tie", False, False),
    ],
)
def test_only_what_both_orders_say_counts(
    forward: str, backward: str, outcome: Outcome, is_consistent: bool, is_clear: bool
) -> None:
    (found,) = rulings([ITEM], [Answer(forward, "stop"), Answer(backward, "stop")])
    assert (found.outcome, found.is_consistent, found.is_clear) == (outcome, is_consistent, is_clear)


def test_a_summary_counts_a_tie_as_half_a_win_and_has_an_interval() -> None:
    items = [Item(str(place), str(place), "", ITEM.messages) for place in range(40)]
    replies = [
        Answer(text, "stop")
        for place in range(40)
        for text in (("[[2]]", "[[1]]") if place < 30 else ("[[1]]", "[[1]]"))
    ]
    found = summary(items, rulings(items, replies))
    assert (found["wins"], found["losses"], found["ties"], found["win_rate"]) == (30, 0, 10, 0.875)
    assert (found["inconsistent"], found["unreadable"]) == (10, 0)
    assert 0.75 < found["lower"] < 0.875 < found["upper"] <= 1
    assert found["outcomes"].count("candidate") == 30
