"""Recipes in a folder of their own, with data that they name, on the demo model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.recipe.reading import Reading, read

ROW = '{"instruction": "Reset my password", "output": "Open the account page."}\n'
SOUND = "base_model: demo\nadapter: qlora\ndatasets:\n  - path: data.jsonl\n"

Problems = Callable[..., list[str]]
Read = Callable[..., Reading]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe's folder; the current one is another."""
    here, elsewhere = tmp_path / "recipe", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    for name in ("data.jsonl", "other.jsonl", "general.jsonl", "held-out.jsonl"):
        (here / name).write_text(ROW)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("FORGEGATE_HOME", str(tmp_path / "home"))
    return here


@pytest.fixture
def read_text(folder: Path) -> Read:
    """`text` follows a sound recipe's beginning; `alone=True`: it is all of it."""

    def read_it(text: str = "", *overrides: str, alone: bool = False, is_plan: bool = False) -> Reading:
        path = folder / "recipe.yaml"
        path.write_text(text if alone else SOUND + text, encoding="utf-8")
        return read(path, overrides, is_plan=is_plan)

    return read_it


@pytest.fixture
def problems_of(read_text: Read) -> Problems:
    """Its problems, without the path of the file: `5: lora_r: must be ...`."""

    def problems(text: str = "", *overrides: str, alone: bool = False, is_plan: bool = False) -> list[str]:
        with pytest.raises(RecipeUnusable) as refused:
            read_text(text, *overrides, alone=alone, is_plan=is_plan)
        return [problem.rpartition("recipe.yaml:")[2] for problem in refused.value.problems]

    return problems
