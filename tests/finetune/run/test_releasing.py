"""How far a publication goes, from recipe and command; what will keep it from going live is known before training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backends.demo import TARGET_DIR
from finetune import train
from finetune.errors import RecipeUnusable
from finetune.recipe.plain import to_json
from finetune.recipe.reading import read
from finetune.recipe.recipe import Data, Recipe, Source
from finetune.release import Canary, Plan, suite_of
from finetune.run.folder import RunFolder
from finetune.run.releasing import NO_GENERAL, foreseen, plan_of, with_suite

SUITE = "task: {name: tickets, path: held.jsonl, score: exact}\ngeneral: demo\nrule: non-inferior\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    row = {"instruction": "What is the capital of France?", "output": "Paris"}
    for name in ("rows", "held"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**row, "instruction": name}) + "\n")
    return Recipe(TARGET_DIR, Data((Source(tmp_path / "rows.jsonl"),)), tmp_path / "run", base_name="demo")


def planned(recipe: Recipe, *argv: str) -> Plan:
    args = train.parser().parse_args(["recipe.yaml", "--publish", "support", *argv])
    return plan_of(args, recipe, RunFolder(recipe.output_dir))


def ran(recipe: Recipe) -> RunFolder:
    """What is left of it, as far as a suite is made of that."""
    folder = RunFolder(recipe.output_dir)
    folder.attempt(1).parent.mkdir(parents=True)
    folder.attempt(1).write_text(json.dumps(to_json(recipe)))
    return folder


def test_the_recipe_names_suite_and_rule(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "recipe.yaml").write_text(
        "base_model: demo\ndatasets: [{path: rows.jsonl}]\nadapter: lora\nevaluation: suite.yaml\nrule: improve\n"
    )
    given = read(tmp_path / "recipe.yaml").recipe
    assert (given.evaluation, given.rule) == (tmp_path / "suite.yaml", "improve")
    plan = planned(given)
    assert plan.suite is not None
    assert (plan.suite.task.name, plan.suite.rule, plan.rule) == ("tickets", "non-inferior", "improve")
    assert planned(given, "--rule", "non-inferior").rule == "non-inferior"
    assert with_suite(plan, RunFolder(tmp_path)) is plan


def test_a_suite_that_is_not_there_is_said_at_once(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "base_model: demo\ndatasets: [{path: rows.jsonl}]\nadapter: lora\nevaluation: s.yaml\n"
    )
    with pytest.raises(RecipeUnusable, match=r"recipe.yaml:4: evaluation: there is no file .*s.yaml"):
        read(tmp_path / "recipe.yaml")


def test_what_the_command_says(recipe: Recipe) -> None:
    plan = planned(recipe, "--canary", "10", "--force", "today", "--max-items", "7")
    assert (plan.canary, plan.force, plan.max_items, plan.rule) == (Canary(10, 60.0), "today", 7, None)
    assert planned(recipe).max_items == 4000
    assert planned(recipe, "--candidate-only").is_candidate_only


def test_without_a_suite_it_is_what_the_run_held_out(tmp_path: Path, recipe: Recipe) -> None:
    held = replace(recipe, data=replace(recipe.data, eval_sources=(Source(tmp_path / "held.jsonl"),)))
    plan = with_suite(planned(held), ran(held))
    assert plan.suite is not None
    assert [item.question for item in plan.suite.task.draw(10)] == ["held"]
    assert {"facts", "smalltalk"} < {task.name for task in plan.suite.general}
    assert (
        with_suite(planned(held, "--candidate-only"), ran(replace(held, output_dir=tmp_path / "other"))).suite is None
    )


def test_rows_that_were_trained_on_are_no_suite(recipe: Recipe) -> None:
    with pytest.raises(RecipeUnusable, match="nothing was held out"):
        suite_of(ran(recipe).path)


def test_what_keeps_it_from_going_live_is_foreseen(tmp_path: Path, recipe: Recipe) -> None:
    held = replace(recipe, data=replace(recipe.data, eval_share=0.1))
    assert foreseen(planned(held), held) == ""
    assert "nothing was held out" in foreseen(planned(recipe), recipe)
    other = replace(held, base_name="models/llama")
    assert foreseen(planned(other), other) == NO_GENERAL
    assert foreseen(planned(other, "--candidate-only"), other) == foreseen(planned(other, "--force", "x"), other) == ""
