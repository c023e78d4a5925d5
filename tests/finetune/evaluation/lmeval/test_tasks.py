"""Task files of lm-eval: what is asked, and what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import RecipeUnusable
from finetune.evaluation.items import Answer, Item, Task
from finetune.evaluation.lmeval import tasks_of
from tests.finetune.evaluation.lmeval import files
from tests.finetune.evaluation.lmeval.files import ARC, GSM8K, HELLASWAG, MMLU_TEMPLATE, arc_row, mmlu_row, written

PLANTS = arc_row("What do plants need?", ["Light", "Sand and a very long rest", "Sound"], "A")


def only(folder: Path) -> Task:
    (task,) = tasks_of(folder)
    return task


def by_id(task: Task) -> dict[str, Item]:
    return {item.id: item for item in task.draw(99)}


def test_a_group_is_one_task_of_all_its_items(tmp_path: Path) -> None:
    task = only(files.mmlu(tmp_path))
    assert (task.name, task.metric) == ("mmlu", "acc")
    items = by_id(task)
    assert sorted(items) == ["mmlu_law/1", "mmlu_law/2", "mmlu_math/1"]
    one = items["mmlu_law/2"]
    assert one.prompt == (
        "The following are multiple choice questions about law.\n\nWhich?\nA. one\nB. two\nC. three\nD. four\nAnswer:"
    )
    assert (one.kind, one.choices, one.lengths, one.right, one.expected) == (
        "choose",
        (" A", " B", " C", " D"),
        (1, 1, 1, 1),
        1,
        "B",
    )
    assert task.score(one, Answer("", "", scores=(-3.0, -1.0, -2.0, -4.0))) == {"acc": 1.0}
    assert task.score(one, Answer("", "", scores=(-1.0, -1.0, -2.0, -4.0))) == {
        "acc": 0.0
    }  # the first of equals, as numpy has it
    assert [one.name for one in tasks_of(tmp_path, ["mmlu_math"])] == ["mmlu_math"]


def test_examples_are_solved_before_the_question_and_none_is_the_question(tmp_path: Path) -> None:
    rows = [mmlu_row(f"Q{number}?", number) for number in range(3)]
    task = (
        "include: _template.yaml\ntask: t\ndataset_kwargs: {data_files: {test: a.jsonl, dev: a.jsonl}}\nnum_fewshot: 2\n"
        'doc_to_text: "{{question}}"\n'
    )
    written(tmp_path, {"_template.yaml": MMLU_TEMPLATE, "t.yaml": task, "a.jsonl": rows})
    assert {item.prompt for item in only(tmp_path).draw(9)} == {
        "Q1? B\n\nQ2? C\n\nQ0?", "Q0? A\n\nQ2? C\n\nQ1?", "Q0? A\n\nQ1? B\n\nQ2?",
    }  # fmt: skip


def test_acc_norm_is_per_character_and_what_is_compared(tmp_path: Path) -> None:
    task = only(written(tmp_path, {"arc.yaml": ARC, "arc.jsonl": [PLANTS]}))
    (item,) = task.draw(9)
    assert (task.name, task.metric) == ("arc_challenge", "acc_norm")
    assert item.prompt == "Question: What do plants need?\nAnswer:"
    assert item.choices == (" Light", " Sand and a very long rest", " Sound")
    assert item.lengths == (5, 25, 5)
    # Light is likeliest; by characters the long choice is: -10 / 25 = -0.4 against -3 / 5 = -0.6
    assert task.score(item, Answer("", "", scores=(-3.0, -10.0, -9.0))) == {"acc": 1.0, "acc_norm": 0.0}
    assert task.score(item, Answer("", "", scores=(-3.0, -20.0, -2.0))) == {"acc": 0.0, "acc_norm": 0.0}
    assert task.score(item, Answer("", "", scores=(-1.0, -20.0, -2.0))) == {"acc": 1.0, "acc_norm": 1.0}


def test_a_target_is_a_number_that_a_template_gives_or_a_choices_text(tmp_path: Path) -> None:
    rows = [{"query": "He", "choices": ["2", "1", "0"], "label": "2"}]
    task = only(written(tmp_path / "a", {"h.yaml": HELLASWAG, "hellaswag.jsonl": rows}))
    assert task.draw(1)[0].right == 2  # `{{label}}`: the third, as lm-eval reads it
    task = only(written(tmp_path / "b", {"h.yaml": HELLASWAG.replace('"{{label}}"', "label"), "hellaswag.jsonl": rows}))
    assert task.draw(1)[0].right == 0  # `label`: the choice that reads so


def test_generated_answers_are_cut_by_each_filter(tmp_path: Path) -> None:
    rows = [{"question": "1 + 1299?", "answer": "It is easy.\n#### 1,300"}]
    train = [{"question": "1 + 1?", "answer": "#### 2"}]
    task = only(written(tmp_path, {"g.yaml": GSM8K, "gsm8k.jsonl": rows, "train.jsonl": train}))
    (item,) = task.draw(9)
    assert (item.kind, item.stop, task.max_tokens, task.metric) == (
        "generate",
        ("Question:", "</s>"),
        64,
        "exact_match,strict-match",
    )
    assert item.prompt == "Question: 1 + 1?\nAnswer: #### 2\n\nQuestion: 1 + 1299?\nAnswer:"
    assert item.request(64, 0)["stop"] == ["Question:", "</s>"]

    def scores(text: str) -> list[float]:
        return list(task.score(item, Answer(text, "stop")).values())

    assert scores("So\n#### 1300") == [1, 1]
    assert scores("#### $1,300.") == [0, 1]
    assert scores("first 12, then $1,300.") == [0, 1]
    assert scores("It is 1301.") == [0, 0]
    assert scores("no idea") == [0, 0]


def test_one_of_several_answers_is_right_and_case_may_not_count(tmp_path: Path) -> None:
    text = """
task: t
dataset_path: json
dataset_kwargs: {data_files: {test: a.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: question
doc_to_target: answers
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true}]
filter_list: [{name: none, filter: [{function: remove_whitespace}]}]
"""
    task = only(
        written(tmp_path, {"t.yaml": text, "a.jsonl": [{"question": "Capital?", "answers": ["Seoul", "서울"]}]})
    )
    (item,) = task.draw(1)
    assert item.stop == ("\n\n",)
    assert [task.score(item, Answer(text, ""))["exact_match,none"] for text in (" seoul.", "서울", "Busan")] == [
        1,
        1,
        0,
    ]


def test_csv_and_parquet_are_read_too(tmp_path: Path) -> None:
    text = ARC.replace("arc.jsonl", "arc.csv").replace("dataset_path: json", "dataset_path: csv")
    text = text.replace('"{{choices.text}}"', '["x", "y"]').replace('"{{choices.label.index(answerKey)}}"', "key")
    task = only(written(tmp_path, {"a.yaml": text, "arc.csv": "question,key\nWhy?,y\nWho?,x\n"}))
    assert {item.prompt: item.right for item in task.draw(9)} == {
        "Question: Why?\nAnswer:": 1,
        "Question: Who?\nAnswer:": 0,
    }


# refused ---------------------------------------------------------------------------------------------------------------


def refused(folder: Path, text: str, rows: list[dict[str, Any]] | None = None) -> list[str]:
    with pytest.raises(RecipeUnusable) as caught:
        tasks_of(written(folder, {"t.yaml": text, "arc.jsonl": rows or [PLANTS]}))
    return [problem.removeprefix(f"{folder}/t.yaml: ") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("test_split: test", "test_split: test\nprocess_docs: !function utils.process_docs",
         "process_docs: !function utils.process_docs is code, which is not run: write a template, or put what it computes into the rows"),
        ("test_split: test", "test_split: test\nprocess_results: x", "process_results: this key is not supported"),
        ("test_split: test", "test_split: test\nnum_fewshots: 2", "num_fewshots: this key is not supported; did you mean num_fewshot?"),
        ("test_split: test", "test_split: validation", "test_split: 'validation' is none of the data_files: test"),
        ("test_split: test\n", "", "test_split: it is missing"),
        ("test_split: test", "test_split: test\nnum_fewshot: 5", "fewshot_config: examples are the first ones of the split"),
        ("dataset_path: json", "dataset_path: allenai/ai2_arc", "dataset_path: 'allenai/ai2_arc' would come from a hub"),
        ("data_files: {test: arc.jsonl}", "revision: x", "dataset_kwargs.revision: this key is not supported"),
        ("output_type: multiple_choice", "output_type: loglikelihood",
         "output_type: supported are multiple_choice and generate_until, got 'loglikelihood'"),
        ("{metric: acc,", "{metric: brier_score,", "metric_list: supported for multiple_choice are acc and acc_norm, not 'brier_score'"),
        ("{metric: acc, aggregation: mean", "{metric: acc, aggregation: median",
         "metric_list: supported is aggregation: mean, not 'median'"),
        ('doc_to_choice: "{{choices.text}}"\n', "", "doc_to_choice: it is missing: the choices of a document"),
        ("test_split: test", "test_split: test\nfilter_list: []",
         "filter_list: expected a list of filters, for output_type: generate_until"),
        ("test_split: test", "test_split: test\nrepeats: 4", "repeats: greedy answers are the same each time: leave it out"),
        ("test_split: test", "test_split: test\ngeneration_kwargs: {top_p: 1}", "generation_kwargs.top_p: this key is not supported"),
        ("test_split: test", "test_split: test\ngeneration_kwargs: {do_sample: true}", "generation_kwargs.do_sample: answers are greedy"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, old: str, new: str, wanted: str) -> None:
    assert old in ARC
    found = refused(tmp_path, ARC.replace(old, new, 1))
    assert any(problem.startswith(wanted) for problem in found), found


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = ARC.replace("dataset_path: json", "dataset_path: hub/name\nunknown: 1").replace("acc_norm", "f1")
    assert len(refused(tmp_path, text)) == 3


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({**PLANTS, "answerKey": "Z"}, "the template '{{choices.label.index(answerKey)}}'"),
        ({"question": "Why?"}, "'choices' is undefined"),
        (arc_row("Why?", ["one"], "A"), "choices are a list of two or more"),
    ],
)
def test_a_document_that_does_not_fit_is_named(tmp_path: Path, row: dict[str, Any], wanted: str) -> None:
    (found,) = refused(tmp_path, ARC, [PLANTS, row])
    assert found.startswith("arc_challenge: document 2 of arc.jsonl: ")
    assert wanted in found


@pytest.mark.parametrize(
    ("files_", "wanted"),
    [
        ({}, "it has no task file"),
        ({"a.yaml": "task: [x"}, "a.yaml: not valid YAML"),
        ({"a.yaml": "- 1"}, "a.yaml: a task file is keys and values"),
        ({"a.yaml": "include: a.yaml\ntask: x"}, "files include each other without end"),
        ({"a.yaml": "include: none.yaml\ntask: x"}, "none.yaml: No such file"),
        ({"a.yaml": ARC, "b.yaml": ARC}, "another file names its task 'arc_challenge' too"),
        ({"a.yaml": "group: g\ntask: [nobody]"}, "group g: 'nobody' is no task of this folder"),
        (
            {"a.yaml": "group: g\ntask: []\naggregate_metric_list: [{metric: acc, weight_by_size: false}]"},
            "weight_by_size: true",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files_: dict[str, str], wanted: str) -> None:
    with pytest.raises(RecipeUnusable) as caught:
        tasks_of(written(tmp_path, {**files_, "arc.jsonl": [PLANTS]}))
    assert wanted in str(caught.value)


def test_a_folder_that_is_not_there_and_a_task_that_is_not_in_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match="there is no such folder"):
        tasks_of(tmp_path / "none")
    with pytest.raises(RecipeUnusable, match=r"it has no task 'nobody'; it has mmlu, mmlu_law, mmlu_math"):
        tasks_of(files.mmlu(tmp_path), ["nobody"])


def test_templates_reach_nothing_beyond_the_row(tmp_path: Path) -> None:
    text = ARC.replace('"Question: {{question}}\\nAnswer:"', '"{{question.__class__.__mro__[1].__subclasses__()}}"', 1)
    (found,) = refused(tmp_path, text)
    assert "access to attribute '__class__'" in found
