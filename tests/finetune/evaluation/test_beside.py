"""Speed and perplexity, from answers."""

from __future__ import annotations

import math

import pytest

from finetune.evaluation.items import Answer, Item
from finetune.evaluation.perplexity import NUM_ITEMS, asked_for, perplexity_of
from finetune.evaluation.speed import speed_of


def test_times_are_quantiles_in_milliseconds() -> None:
    answers = [Answer("x", "stop", 3, 11, 0.1, 0.6), Answer("x", "stop", 3, 11, 0.3, 1.3)]
    found = speed_of(answers, 2, 2.0)
    assert found["ttft_ms"] == pytest.approx({"p50": 200, "p95": 290})
    assert found["tpot_ms"] == pytest.approx({"p50": 75, "p95": 97.5})
    assert found["latency_ms"] == pytest.approx({"p50": 950, "p95": 1265})
    assert found["tokens_per_s"] == 11
    assert speed_of(answers, 1, 2.0)["tokens_per_s"] is None  # one of them came earlier


def test_what_was_not_timed_is_null() -> None:
    found = speed_of([Answer("", "scored", scores=(-1.0,))], 1, 1.0)
    assert (found["ttft_ms"], found["tpot_ms"], found["tokens_per_s"], found["num_answers"]) == (None, None, None, 0)
    assert Answer("x", "stop", 1, 1, 0.1, 0.2).tpot_s is None


def test_perplexity_is_of_all_tokens() -> None:
    answers = [[Answer("", "scored", 3, 2, scores=(-2.0,)), Answer("", "scored", 3, 6, scores=(-2.0,))]]
    found = perplexity_of(answers)
    assert found["by_model"] == [pytest.approx(math.exp(4 / 8))]
    assert found["by_item"] == [[pytest.approx(1.0), pytest.approx(1 / 3)]]
    assert (found["num_items"], found["num_tokens"]) == (2, 8)


def test_what_has_no_text_alone_is_not_asked_for() -> None:
    chat = [Item(str(place), "", "Hello") for place in range(NUM_ITEMS + 5)]
    others = [Item("a", "", "x", kind="choose"), Item("b", "", "<tool_call>\n{}\n</tool_call>")]
    found = asked_for([*others, *chat])
    assert [item.id for item in found] == [item.id for item in chat[:NUM_ITEMS]]
    assert {item.kind for item in found} == {"given"}
