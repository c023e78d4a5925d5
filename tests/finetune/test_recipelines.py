"""Where a recipe's keys stand, and what is proposed in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.recipelines import keys_of, remedy_lines

RECIPE = """# a comment
base_model: demo
num_epochs: 3
general:
  path: chats.jsonl
  share: 0.1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_keys_have_their_lines(recipe: Path) -> None:
    values, lines = keys_of(recipe)
    assert values == {"base_model": "demo", "num_epochs": 3, "general": {"path": "chats.jsonl", "share": 0.1}}
    assert lines == {"base_model": 2, "num_epochs": 3, "general": 4}


def test_what_the_command_says_stands_on_no_line(recipe: Path) -> None:
    values, lines = keys_of(recipe, ["num_epochs=5", "general.share=0.25", "lora_r=4", "base_model.x=1"])
    assert (values["num_epochs"], values["lora_r"], values["base_model"]) == (5, 4, "demo")
    assert values["general"] == {"path": "chats.jsonl", "share": 0.25}
    assert lines == {}


def test_remedies_name_the_line(recipe: Path) -> None:
    said = "\n".join(remedy_lines(recipe))
    assert "line 3: `num_epochs: 3` -> `num_epochs: 2`" in said
    assert "line 4: `general: {path: chats.jsonl, share: 0.1}` -> `general: {path: chats.jsonl, share: 0.2}`" in said


@pytest.mark.parametrize("content", [None, "[1, 2", "- 1\n", ""])
def test_without_a_recipe_they_hold_for_any(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    assert keys_of(path) == ({}, {})
    assert "add `num_epochs: 2`" in "\n".join(remedy_lines(path))
