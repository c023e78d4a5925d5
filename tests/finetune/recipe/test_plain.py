"""JSON and back: what an attempt is told is the recipe, whatever is in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import RecipeUnusable
from finetune.recipe.plain import from_json, to_json
from finetune.recipe.recipe import Data, Lora, Memory, Recipe, Source, Steps, Watch

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
texts = st.text(max_size=12)
paths = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12).map(Path)
maps = st.dictionaries(texts, texts, max_size=3)
sources = st.builds(Source, paths, texts, maps)
several = st.lists(sources, max_size=3).map(tuple)
names = st.lists(texts, max_size=3).map(tuple)
recipes = st.builds(
    Recipe,
    base=paths,
    data=st.builds(Data, several, several, numbers, counts, several, numbers, counts, texts, st.booleans(), texts),
    output_dir=paths,
    lora=st.none() | st.builds(Lora, counts, numbers, numbers, names, st.booleans()),
    steps=st.builds(
        Steps, numbers, texts, counts, numbers, texts, numbers, numbers, numbers, counts, counts, counts, texts
    ),
    memory=st.builds(Memory, st.booleans(), texts, *[st.booleans()] * 2, names, st.booleans(), texts, st.booleans()),
    watch=st.builds(Watch, *[counts] * 7, names, maps, names),
    seed=counts,
    base_name=texts,
    trust_remote_code=st.booleans(),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_the_round_trip_is_exact(recipe: Recipe) -> None:
    back = from_json(json.loads(json.dumps(to_json(recipe))))
    assert back == recipe
    assert repr(back) == repr(recipe)  # types too: 1 is not 1.0


def test_it_is_plain_json() -> None:
    content = to_json(Recipe(Path("/base"), Data((Source(Path("/a"), columns={"output": "답"}),)), Path("/run")))
    assert content["data"]["sources"] == [{"path": "/a", "form": "", "columns": {"output": "답"}}]
    assert content["lora"]["targets"] == ["all-linear"]


def broken(**changes: Any) -> dict[str, Any]:
    return {**to_json(Recipe(Path("/base"), Data(()), Path("/run"))), **changes}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (broken(seed="3"), "recipe.seed: expected int, got '3'"),
        (broken(seed=True), "recipe.seed: expected int, got True"),
        (broken(base=3), "recipe.base: expected Path, got 3"),
        (broken(extra=1), "recipe: not written by this version: extra"),
        (broken(lora={"rank": 3}), "recipe.lora: not written by this version: alpha"),
        (broken(data=[]), "recipe.data: not written by this version"),
        ({}, "recipe: not written by this version"),
    ],
)
def test_what_is_no_recipe_is_named(content: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeUnusable) as refused:
        from_json(content)
    assert str(refused.value).startswith(words)
    assert str(refused.value).endswith("go on with the version of forgegate that began this run, or begin another run")


def test_a_whole_number_for_a_share_is_one() -> None:
    recipe = Recipe(Path("/base"), Data(()), Path("/run"), steps=replace(Steps(), num_epochs=3.0))
    content = json.loads(json.dumps(to_json(recipe)).replace('"num_epochs": 3.0', '"num_epochs": 3'))
    assert from_json(content) == recipe
