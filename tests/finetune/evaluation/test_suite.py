"""Suites: what a file says, what is wrong with one, and what decides their digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.demo.skills import SKILLS
from finetune.errors import RecipeUnusable
from finetune.evaluation.items import Answer, Task
from finetune.evaluation.suite import MAX_DROP, Suite, load

ROWS = [
    {"messages": [{"role": "user", "content": f"Order {number}?"}, {"role": "assistant", "content": f'{{"order": {number}}}'}],
     "cluster": f"t{number % 3}", "id": f"row-{number}"}
    for number in range(12)
]  # fmt: skip
SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
SUITE = """
task: {name: tickets, path: held-out.jsonl, score: json_schema, schema: schema.json}
general: demo
"""


def written(folder: Path, text: str = SUITE, rows: list[dict[str, Any]] | None = None, schema: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows or ROWS)
    (folder / "held-out.jsonl").write_text(lines, "utf-8")
    (folder / "schema.json").write_text(json.dumps(schema or SCHEMA))
    path = folder / "suite.yaml"
    path.write_text(text, "utf-8")
    return path


def problems(folder: Path, text: str, **more: Any) -> list[str]:
    with pytest.raises(RecipeUnusable) as caught:
        load(written(folder, text, **more))
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_a_task_and_the_demos_skills(tmp_path: Path) -> None:
    suite = load(written(tmp_path))
    assert [task.name for task in suite.tasks] == ["tickets", *SKILLS]
    assert (suite.rule, suite.drops()["arithmetic"]) == ("improve", MAX_DROP)
    items = suite.task.draw(500)
    assert sorted(item.id for item in items) == sorted(row["id"] for row in ROWS)
    assert {item.cluster for item in items} == {"t0", "t1", "t2"}
    assert suite.task.draw(5) == items[:5]
    one = items[0]
    assert one.messages == ({"role": "user", "content": one.question},)
    assert suite.task.score(one, Answer('{"order": 1}', "stop")) == {"json_schema": 1.0}
    assert suite.task.score(one, Answer("no", "stop")) == {"json_schema": 0.0}


def test_the_first_rows_are_from_all_over_the_file(tmp_path: Path) -> None:
    ids = [item.id for item in load(written(tmp_path)).task.draw(500)]
    assert ids != sorted(ids)


def test_all_faults_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """task:
  name: tickets
  path: none.jsonl
  score: jsonschema
general:
  - {name: other, path: held-out.jsonl, score: choice, choices: [a, a]}
  - dmo
max_dorp: 3
rule: improved
seed: -1
"""
    assert problems(tmp_path, text) == [
        "suite.yaml:4: task.score: expected exact | contains | json_schema | json_fields | f1 | rouge_l | choice, got 'jsonschema' "
        "(did you mean 'json_schema'?)",
        "suite.yaml:6: general.0.choices: 'a' is in the list twice",
        "suite.yaml:7: general.1: expected demo, a list of tasks, or {lm_eval: FOLDER}, got 'dmo'",
        "suite.yaml:8: max_dorp: unknown key; did you mean max_drop?",
        "suite.yaml:9: rule: expected improve | non-inferior, got 'improved' (did you mean 'improve'?)",
        "suite.yaml:10: seed: must be 0 or more, got -1",
    ]


WHAT = "what the model was tuned for, such as {name: tickets, path: held-out.jsonl, score: f1}"
KEYS = "name, path, score, schema, choices, cluster, closed, max_tokens"
A_TASK = "task: {name: a, path: held-out.jsonl, score: "


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["1: the suite is empty: it needs at least a task"]),
        ("- a", ["1: a suite is keys and values, such as `general: demo`; this is a list"]),
        ("general: demo", [f"1: task: it is missing: {WHAT}"]),
        ("task: {path: held-out.jsonl, score: f1}", ["1: task.name: it is missing: text"]),
        ("task: tickets", [f"1: task: expected keys and values ({KEYS}), got 'tickets'"]),
        (A_TASK + "json_schema}", ["1: task.schema: it is missing: the file of the JSON schema"]),
        (A_TASK + "f1, schema: schema.json}", ["1: task.schema: it goes with score: json_schema"]),
        (A_TASK + "f1, choices: [a, b]}", ["1: task.choices: it goes with score: choice"]),
        (
            SUITE + "max_drop: {arithmetics: 3}",
            ["4: max_drop.arithmetics: no general skill has this name; did you mean arithmetic?"],
        ),
        (SUITE + "max_drop: 0", ["4: max_drop: points of 100: must be above 0, at most 99, got 0"]),
        (
            SUITE.replace("demo", "[demo, demo]"),
            [f"2: two tasks are named {name!r}: give each a name of its own" for name in SKILLS],
        ),
    ],
)
def test_what_is_wrong_with_a_suite(tmp_path: Path, text: str, wanted: list[str]) -> None:
    assert problems(tmp_path, text) == [f"suite.yaml:{problem}" for problem in wanted]


def test_a_file_that_is_not_there_and_a_schema_that_is_none(tmp_path: Path) -> None:
    text = SUITE.replace("held-out.jsonl", "none.jsonl")
    assert problems(tmp_path, text) == [f"suite.yaml:2: task.path: {tmp_path}/none.jsonl: there is no such file"]
    (found,) = problems(tmp_path, SUITE, schema={"type": "obj"})
    assert found.startswith(
        f"suite.yaml:2: task.schema: {tmp_path}/schema.json: the schema: type takes one or some of object,"
    )


def test_rows_that_cannot_be_asked_are_named(tmp_path: Path) -> None:
    bad = [
        ROWS[0],
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "assistant", "content": "Hi"}]},
        {"messages": [{"role": "robot", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]},
        ROWS[0],
    ]
    found = problems(tmp_path, "task: {name: a, path: held-out.jsonl, score: f1}", rows=bad)
    where = f"suite.yaml:1: task.path: {tmp_path}/held-out.jsonl: "
    assert found == [
        f"{where}row 2: it has no answer to be held against",
        f"{where}row 3: nothing is asked before its answer",
        f"{where}row 4: message 1 has the role 'robot'",
        f"{where}row 5: another row has the id 'row-0' too",
    ]


def test_rows_without_ids_that_are_the_same_are_one_item(tmp_path: Path) -> None:
    row = {"instruction": "Sum up", "input": "A text", "output": "Short"}
    suite = load(
        written(
            tmp_path, "task: {name: a, path: held-out.jsonl, score: f1}", rows=[row, row, {**row, "input": "Other"}]
        )
    )
    items = suite.task.draw(9)
    assert len(items) == 2
    assert {item.question for item in items} == {"Sum up\n\nA text", "Sum up\n\nOther"}
    assert all(item.cluster == item.id for item in items)


def test_rows_with_tools_are_asked_as_the_api_takes_them(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    row = {
        "messages": [
            {"role": "user", "content": "Call f"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2."},
        ],
        "tools": [tool],
    }
    (item,) = load(written(tmp_path, "task: {name: a, path: held-out.jsonl, score: contains}", rows=[row])).task.draw(9)
    sent = item.request(16, 0)
    assert sent["tools"] == [tool]
    assert sent["messages"][1]["tool_calls"] == [
        {"id": "call_1_0", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    assert sent["messages"][2]["tool_call_id"] == "call_1_0"
    assert item.expected == "It is 2."


def test_labels_of_a_choice_are_those_of_its_rows(tmp_path: Path) -> None:
    rows = [{"instruction": f"Q{number}", "output": ("환불", "배송")[number % 2]} for number in range(8)]
    suite = load(written(tmp_path, "task: {name: a, path: held-out.jsonl, score: choice}", rows=rows))
    item = suite.task.draw(1)[0]
    assert suite.task.score(item, Answer(f"{item.expected}입니다", "stop")) == {"choice": 1.0}
    text = "task: {name: a, path: held-out.jsonl, score: choice, choices: [환불, 기타]}"
    (found,) = problems(tmp_path, text, rows=rows)
    assert "wants '배송', which is none of `choices`" in found
    (found,) = problems(tmp_path, "task: {name: a, path: held-out.jsonl, score: choice}", rows=rows[:1])
    assert "its rows have 1 different answers" in found


# the digest ------------------------------------------------------------------------------------------------------------


def test_the_digest_is_of_content_never_of_a_path(tmp_path: Path) -> None:
    first = load(written(tmp_path / "a"))
    second = load(written(tmp_path / "b", SUITE + "\n# a note\nrule: non-inferior\nmax_drop: 2\n", rows=ROWS[::-1]))
    assert first.digest == second.digest
    assert first.digest.startswith("sha256:")
    assert len(first.digest) == 71


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": [*ROWS[:-1], {**ROWS[-1], "cluster": "t9"}]},
        {"rows": ROWS[:-1]},
        {"schema": {**SCHEMA, "additionalProperties": False}},
        {"text": SUITE.replace("json_schema, schema: schema.json", "json_fields")},
        {"text": SUITE.replace("name: tickets", "name: letters")},
        {"text": SUITE + "seed: 7"},
        {"text": SUITE.replace("score:", "max_tokens: 99, score:")},
        {"text": SUITE.replace("general: demo", "")},
    ],
)
def test_what_decides_a_score_changes_the_digest(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert load(written(tmp_path / "a")).digest != load(written(tmp_path / "b", **changed)).digest


# limits ----------------------------------------------------------------------------------------------------------------


def named(*names: str) -> tuple[Task, ...]:
    return tuple(Task(name, "acc", lambda num: [], lambda item, answer: {}, 1, {}) for name in names)


def test_limits_are_the_articles_unless_the_suite_says_otherwise() -> None:
    task, *_ = named("tickets")
    general = named("mmlu", "mmlu_law", "hellaswag", "arc_challenge", "other")
    assert Suite(task, general).drops() == {"mmlu": 3, "mmlu_law": 3, "hellaswag": 2, "arc_challenge": 2, "other": 3}
    assert Suite(task, general, {"*": 4.0}).drops() == dict.fromkeys([one.name for one in general], 4.0)
    mixed = Suite(task, general, {"mmlu": 1.0, "mmlu_law": 5.0, "other": 2.5}).drops()
    assert mixed == {"mmlu": 1, "mmlu_law": 5, "hellaswag": 2, "arc_challenge": 2, "other": 2.5}


def test_the_demos_items_are_the_same_for_every_number(tmp_path: Path) -> None:
    suite = load(written(tmp_path))
    for task in suite.general:
        more = task.draw(40)
        assert task.draw(10) == more[:10]
        for item in more:
            assert task.score(item, Answer(item.expected, "stop")) == {"right": 1.0}, item
        assert task.score(more[0], Answer("", "stop")) == {"right": 0.0}
    assert {task.name for task in suite.general if task.is_closed} == {
        "smalltalk",
        "facts",
        "support",
        "glossary",
        "translation",
    }
