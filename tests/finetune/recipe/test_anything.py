"""Whatever is written, there is a recipe or sentences for the user; never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import RecipeUnusable
from finetune.recipe import dataset_keys
from finetune.recipe.honoured import HONOURED
from finetune.recipe.noted import NOTED
from finetune.recipe.plain import from_json, to_json
from finetune.recipe.reading import read
from finetune.recipe.refused import REFUSED
from tests.finetune.recipe.conftest import ROW

WORDS = ["", "demo", "qlora", "true", "no", "auto", "0", "-1", "1", "0.1", "2e-4", "1e999", "[", "x:y", "data.jsonl",
         "~", "~nobody/x", "q_proj",
         "org/name", "../..", "all-linear", "\0", "환불", "a" * 300]  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5)
)
inner_keys = st.sampled_from(
    [*dataset_keys.HONOURED, *dataset_keys.NOTED, *dataset_keys.REFUSED, "loader", "loss", "pad_token", "odd"]
)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(inner_keys, below, max_size=3), max_leaves=5
)
keys = st.sampled_from([*HONOURED, *HONOURED, *NOTED, *REFUSED, "oddity", "lora-r"])
many = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anything")
    (folder / "data.jsonl").write_text(ROW)
    return folder / "recipe.yaml"


def check(path: Path, *overrides: str) -> None:
    try:
        recipe = read(path, overrides).recipe
    except RecipeUnusable as refused:
        problems = refused.problems
    else:
        assert from_json(to_json(recipe)) == recipe
        return
    assert problems
    assert all(problem.strip() and "\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    "word", ["a" * 300, "a" * 5000, "\\0", "~nobody/x", "../..", "a/b", "/", ".", "/dev/null", "org/" + "n" * 300]
)
@pytest.mark.parametrize("key", ["base_model", "datasets.0.path", "output_dir", "general.path", "test_datasets.0.path"])
def test_odd_paths(place: Path, key: str, word: str) -> None:
    place.write_text("base_model: demo\nadapter: qlora\ndatasets: [{path: data.jsonl}]\ntest_datasets: []\n")
    check(place, f'{key}="{word}"')


@many
@given(content=st.dictionaries(keys, values, max_size=6))
def test_any_values_of_any_keys(place: Path, content: dict[str, Any]) -> None:
    sound = {"base_model": "demo", "adapter": "qlora", "datasets": [{"path": "data.jsonl"}]}
    place.write_text(yaml.safe_dump(sound | content, allow_unicode=True), encoding="utf-8")
    check(place)


@many
@given(text=st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`,?\n\t 0.~<é\x85\ufeff"), max_size=40))
def test_any_text(place: Path, text: str) -> None:
    place.write_text(text, encoding="utf-8")
    check(place)


@many
@given(
    override=st.tuples(keys, st.sampled_from(["", ".0", ".x", ".0.path", "."]), st.text(max_size=8)).map(
        "{0[0]}{0[1]}={0[2]}".format
    )
)
def test_any_override(place: Path, override: str) -> None:
    place.write_text("base_model: demo\nadapter: qlora\ndatasets: [{path: data.jsonl}]\n")
    check(place, override)


@many
@given(content=st.binary(max_size=60))
def test_any_bytes(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    check(place)
