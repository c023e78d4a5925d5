"""The suite that a training run is held against where it names none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.demo import TARGET_DIR
from backends.demo.skills import SKILLS
from finetune.errors import RecipeUnusable
from finetune.evaluation.items import Answer
from finetune.evaluation.suite import of_run
from finetune.recipe.plain import to_json
from finetune.recipe.recipe import Data, Recipe, Source


def trained(folder: Path, answers: list[str], base: Path = TARGET_DIR, **data: Any) -> Path:
    """A run's folder whose evaluation set has these answers."""
    rows = [{"instruction": f"Q{number}", "output": answer} for number, answer in enumerate(answers)]
    for name in ("train", "eval"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({**row, "input": name}) + "\n" for row in rows))
    sources = (Source(folder / "eval.jsonl"),) if not data else ()
    recipe = Recipe(base, Data((Source(folder / "train.jsonl"),), eval_sources=sources, **data), folder / "run")
    attempts = folder / "run" / "attempts"
    attempts.mkdir(parents=True)
    (attempts / "1.json").write_text(json.dumps(to_json(recipe)))
    return folder / "run"


def test_json_answers_are_scored_by_field_and_the_demo_keeps_its_skills(tmp_path: Path) -> None:
    suite = of_run(trained(tmp_path, ['{"a": 1, "b": 2}', '{"a": 3}']))
    assert (suite.task.name, suite.task.metric) == ("held-out", "json_fields")
    assert [task.name for task in suite.general] == list(SKILLS)
    assert suite.rule == "improve"
    items = {item.question: item for item in suite.task.draw(9)}
    assert set(items) == {"Q0\n\neval", "Q1\n\neval"}
    assert suite.task.score(items["Q0\n\neval"], Answer('{"a": 1, "b": 3}', "stop")) == {"json_fields": 0.5}


def test_other_answers_are_scored_by_tokens_and_other_bases_have_no_skills(tmp_path: Path) -> None:
    run = trained(tmp_path, ['{"a": 1}', "Hello there"], base=tmp_path)
    suite = of_run(run, rule="non-inferior")
    assert (suite.task.metric, suite.general, suite.rule) == ("f1", (), "non-inferior")
    assert [task.name for task in of_run(run, is_demo=True).general] == list(SKILLS)


def test_what_a_share_held_out_is_the_task(tmp_path: Path) -> None:
    suite = of_run(trained(tmp_path, [f"Answer number {number} of this set" for number in range(40)], eval_share=0.25))
    assert 1 <= len(suite.task.draw(99)) <= 20
    assert all(item.question.endswith("train") for item in suite.task.draw(99))


def test_what_it_was_trained_on_is_no_task(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match="held no rows out, and what it was trained on says nothing"):
        of_run(trained(tmp_path, ["a", "b"], eval_share=0.0))


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match="has no recipe"):
        of_run(tmp_path)
