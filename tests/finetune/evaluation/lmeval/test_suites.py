"""Task files as the general skills of a suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.evaluation.run import Endpoint, evaluate
from finetune.evaluation.suite import load
from tests.finetune.evaluation.lmeval import files
from tests.finetune.evaluation.lmeval.files import ARC, written
from tests.finetune.evaluation.server import Said, Script, serving

SUITE = "task: {name: t, path: rows.jsonl, score: exact}\ngeneral:\n  - {lm_eval: tasks}\n"


def suite_in(folder: Path, text: str = SUITE) -> Path:
    files.mmlu(folder / "tasks")
    written(folder, {"suite.yaml": text, "rows.jsonl": [{"instruction": "Hi", "output": "Hello"}]})
    return folder / "suite.yaml"


def test_they_are_asked_by_log_probabilities_and_have_the_articles_limits(tmp_path: Path) -> None:
    suite = load(suite_in(tmp_path))
    assert suite.drops() == {"mmlu": 3.0}
    # The base prefers A, the tuned model B.
    script = Script(
        lambda body: Said("Hello"),
        logprob=lambda model, token: -1.0 if token == {"demo": "A", "tuned": "B"}[model] else -2.0,
    )
    with serving(script) as url:
        found = evaluate(suite, Endpoint(url), ["demo", "tuned"], 500, lambda *_: None)
    scored = found.scores["mmlu"]
    assert dict(zip(scored.items, zip(*scored.by_model, strict=True), strict=True)) == {
        "mmlu_law/1": (1.0, 0.0), "mmlu_law/2": (0.0, 1.0), "mmlu_math/1": (0.0, 0.0),
    }  # fmt: skip
    line = next(line for line in found.answers if line["id"] == "mmlu_law/1")
    assert line["answers"][0]["choice_scores"] == [-3.0, -4.0, -4.0, -4.0]
    assert [row["num_answers"] for row in found.speed["by_model"]] == [1, 1]  # only the task is answered in words
    json.dumps(found.as_json())


def test_what_is_wrong_with_them_is_said_at_their_line(tmp_path: Path) -> None:
    path = suite_in(tmp_path)
    (tmp_path / "tasks" / "arc.yaml").write_text(ARC.replace("dataset_path: json", "dataset_path: ai2_arc"))
    with pytest.raises(RecipeUnusable) as caught:
        load(path)
    (found,) = caught.value.problems
    assert found.startswith(
        f"{path}:3: general.0.lm_eval: {tmp_path}/tasks/arc.yaml: dataset_path: 'ai2_arc' would come from a hub"
    )


def test_rows_and_templates_decide_the_digest(tmp_path: Path) -> None:
    digest = load(suite_in(tmp_path / "a")).digest
    path = suite_in(tmp_path / "b")
    law = tmp_path / "b" / "tasks" / "mmlu_law.yaml"
    (tmp_path / "b" / "tasks" / "law.jsonl").rename(tmp_path / "b" / "tasks" / "elsewhere.jsonl")
    law.write_text(law.read_text().replace("law.jsonl", "elsewhere.jsonl"))
    assert load(path).digest == digest
    template = tmp_path / "b" / "tasks" / "_template.yaml"
    template.write_text(template.read_text().replace("Answer:", "The answer:"))
    assert load(path).digest != digest
