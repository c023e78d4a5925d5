"""Folders of task files as lm-evaluation-harness has them, with data beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MMLU_TEMPLATE = """
dataset_path: json
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
output_type: multiple_choice
doc_to_text: "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
MMLU = """
group: mmlu
task: [mmlu_law, mmlu_math]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
metadata: {version: 2}
"""
MMLU_TASK = """
include: _template.yaml
task: mmlu_%(name)s
tag: mmlu_humanities_tasks
description: "The following are multiple choice questions about %(name)s.\\n\\n"
dataset_kwargs: {data_files: {test: %(name)s.jsonl, dev: dev.jsonl}}
"""
ARC = """
tag: [ai2_arc]
task: arc_challenge
dataset_path: json
dataset_kwargs: {data_files: {test: arc.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
should_decontaminate: true
doc_to_decontamination_query: "Question: {{question}}\\nAnswer:"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
HELLASWAG = """
tag: [multiple_choice]
task: hellaswag
dataset_path: json
dataset_kwargs: {data_files: {validation: hellaswag.jsonl}}
output_type: multiple_choice
validation_split: validation
test_split: null
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: choices
metric_list:
  - {metric: acc}
  - {metric: acc_norm}
"""
GSM8K = """
task: gsm8k
dataset_path: json
dataset_kwargs: {data_files: {test: gsm8k.jsonl, train: train.jsonl}}
output_type: generate_until
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
num_fewshot: 1
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:", "</s>"], do_sample: false, temperature: 0.0, max_gen_toks: 64}
repeats: 1
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, {function: take_first}]
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
"""


def mmlu_row(question: str, answer: int) -> dict[str, Any]:
    return {"question": question, "choices": ["one", "two", "three", "four"], "answer": answer}


def arc_row(question: str, texts: Sequence[str], key: str) -> dict[str, Any]:
    return {
        "question": question,
        "choices": {"text": list(texts), "label": list("ABCDE"[: len(texts)])},
        "answerKey": key,
    }


def written(folder: Path, files: Mapping[str, str | Sequence[Mapping[str, Any]]]) -> Path:
    """Texts as they are, rows as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        lines = (
            content
            if isinstance(content, str)
            else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        )
        (folder / name).write_text(lines, "utf-8")
    return folder


def mmlu(folder: Path) -> Path:
    return written(folder, {
        "_template.yaml": MMLU_TEMPLATE, "_mmlu.yaml": MMLU, "mmlu_law.yaml": MMLU_TASK % {"name": "law"},
        "mmlu_math.yaml": MMLU_TASK % {"name": "math"},
        "law.jsonl": [mmlu_row("Who?", 0), mmlu_row(" Which? ", 1)], "math.jsonl": [mmlu_row("What?", 3)],
        "dev.jsonl": [mmlu_row("Dev?", 2)],
    })  # fmt: skip
