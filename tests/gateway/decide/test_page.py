"""What is written of a decision."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.decide.chart import Outcome, Question, Way, ways
from gateway.decide.numbers import Asked
from gateway.decide.page import Decision, as_json, markdown, plan_rows, table
from gateway.decide.words import WORDS, Words

EN, KO = WORDS["en"], WORDS["ko"]
BOTH = pytest.mark.parametrize("words", [*WORDS.values()], ids=[*WORDS])
PLAN: dict[str, Any] = {
    "base": "meta-llama/Llama-3.1-8B-Instruct", "num_trainable": 41_943_040, "share_trainable": 0.00522,
    "device": {"name": "RTX 4090", "free_bytes": 23 * 2**30}, "memory": {"total": 14 * 2**30}, "fits": True,
    "ways": {name: {"total": size * 2**30} for name, size in (("full", 120), ("lora", 22), ("qlora", 14))},
    "data": {"num_rows": 5000, "mean_length": 512.0}, "steps": {"num_steps": 219}, "speed": {"seconds": 5400.0},
    "cost": {"one_try": 0.75, "tries": {"3": 2.25, "5": 3.75}}, "remedy": None, "notes": [], "recipe_notes": [],
}  # fmt: skip


def way_to(outcome: Outcome) -> Way:
    return next(way for way in ways() if way.end == outcome)


@BOTH
@pytest.mark.parametrize("way", [*ways()], ids=lambda way: f"{len(way.steps)}-{way.end}")
def test_every_decision_says_what_it_is_by_what_answers_and_what_it_costs(way: Way, words: Words) -> None:
    text = markdown(Decision(way), words)
    assert way.outcome is not None
    named = words.outcomes[way.outcome]
    assert named.name in text.splitlines()[2]
    for question, answer in way.steps:
        (line,) = [each for each in text.splitlines() if each.startswith("|") and words.questions[question] in each]
        assert (words.yes if answer else words.no) in line
    for each in words.outcomes.values():
        assert each.cost in text
        assert each.time in text
        assert each.risk in text
    assert all(case in text for case, _ in words.cases)


def test_the_case_that_an_answer_is_of_is_marked() -> None:
    by_form = markdown(Decision(Way(((Question.FORMAT, True),), Outcome.FINE_TUNING)), EN)
    by_terms = markdown(Decision(Way(((Question.TERMS, True),), Outcome.FINE_TUNING)), EN)
    assert "1. **The form of the answers is strictly fixed** **(this is yours)**" in by_form
    assert "2. **The terms of a domain have to be exact** **(this is yours)**" in by_terms
    assert by_form.count("this is yours") == by_terms.count("this is yours") == 1
    assert EN.labels["else"] not in by_form
    assert EN.labels["else"] in markdown(Decision(way_to(Outcome.RAG)), EN)


def test_the_chart_shows_the_way() -> None:
    text = markdown(Decision(way_to(Outcome.FINE_TUNING)), EN)
    chart = text.partition("```mermaid\n")[2].partition("```")[0]
    assert chart.count("-->|yes|") == chart.count("-->|no|") == 5
    drawn = [line.split()[1] for line in chart.splitlines() if line.startswith("    style ")]
    assert drawn == ["prompting_enough", "needs_documents", "needs_format", "fine_tuning"]


def test_numbers_stand_in_it() -> None:
    decision = Decision(way_to(Outcome.FINE_TUNING), asked=Asked(), plan=PLAN)
    text = markdown(decision, EN)
    rows = dict(plan_rows(PLAN, Asked(), EN.plan))
    assert rows == {
        "recipe": "`llama-3.1-8b-qlora-24gb`, meta-llama/Llama-3.1-8B-Instruct", "data": "5,000 rows of 512 tokens",
        "trained parameters": "41,943,040 (0.52 %)", "on": "RTX 4090, 23.0 GiB", "memory": "14.0 GiB: it fits",
        "memory by method": "full 120.0 GiB, lora 22.0 GiB, qlora 14.0 GiB", "steps": "219", "time of one try": "about 1.5 hours",
        "cost of one try, of 3 to 5": "0.75 · 3 x = 2.25 · 5 x = 3.75",
    }  # fmt: skip
    assert all(value in text for value in rows.values())


def test_what_is_not_known_is_left_out_and_what_does_not_fit_is_said() -> None:
    bare = PLAN | {"data": None, "steps": None, "speed": None, "cost": None, "fits": False} | {
        "remedy": {"changes": ["load_in_4bit: true"], "card": "A100 80GB"}, "notes": ["tight"],
        "recipe_notes": ["base_model: by its shape", "datasets[0].path: there is no file x"],
    }  # fmt: skip
    rows = list(plan_rows(bare, Asked(), EN.plan))
    assert [name for name, _ in rows] == [
        "recipe", "trained parameters", "on", "memory", "memory by method", "what makes it fit", "note", "note",
    ]  # fmt: skip
    assert rows[3][1] == "14.0 GiB: it does not fit"
    assert rows[5][1] == "load_in_4bit: true; A100 80GB"
    assert [value for name, value in plan_rows(bare, Asked(rows=None), EN.plan) if name == "note"][-1].endswith(
        "no file x"
    )


def test_why_there_are_none_is_said() -> None:
    text = markdown(Decision(way_to(Outcome.FINE_TUNING), problem="no such recipe"), KO)
    assert "계산하지 못했습니다: no such recipe" in text


def test_as_json_it_can_be_read_by_programs() -> None:
    decision = Decision(way_to(Outcome.FINE_TUNING), (Question.SPEED,), Asked(), PLAN)
    found = json.loads(json.dumps(as_json(decision, KO)))
    assert found["outcome"] == "fine-tuning"
    assert [(step["question"], step["answer"]) for step in found["path"]] == [
        ("prompting-enough", False), ("needs-documents", False), ("needs-format", True),
    ]  # fmt: skip
    assert found["not_asked"] == ["too-slow"]
    assert [case["is_yours"] for case in found["cases"]] == [True, False, False, False]
    assert found["compared"]["rag"]["time"] == "1-2주"
    assert found["plan"]["num_trainable"] == 41_943_040
    assert found["plan_problem"] is None


def test_columns_are_as_wide_as_they_look() -> None:
    assert list(table(("질문", "a"), [("x", "y|z")])) == ["| 질문 | a    |", "| ---- | ---- |", "| x    | y\\|z |"]
