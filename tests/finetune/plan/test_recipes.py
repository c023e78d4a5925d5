"""Recipes that are shipped: each is read without a complaint, and fits the card that its name or its text promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import finetune
from finetune.plan.device import named
from finetune.plan.memory import estimate
from finetune.plan.plan import Plan, plan
from finetune.recipe.reading import Reading, read
from tests.finetune.plan import models
from tests.finetune.plan.rows import lognormal

RECIPES = Path(finetune.__file__).parent / "recipes"
SHIPPED: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    "llama-3.1-8b-qlora-24gb": (models.LLAMA_31_8B, ("24GB", "RTX3090", "RTX4090", "L4", "A10"), 1),
    "llama-3.1-8b-lora": (models.LLAMA_31_8B, ("24GB", "RTX4090", "L4"), 1),
    "llama-3.1-70b-qlora-48gb": (models.LLAMA_31_70B, ("48GB", "A40", "RTX A6000", "L40S", "RTX 6000 Ada"), 1),
    "llama-3.1-70b-qlora-80gb": (models.LLAMA_31_70B, ("80GB", "A100 80GB", "H100"), 1),
    "two-gpus": (models.LLAMA_31_8B, ("24GB", "RTX4090"), 2),
}
"""The model, cards, and how many of them."""
FITS = [(name, card) for name, (_, cards, _) in SHIPPED.items() for card in cards]


def reading(name: str, tmp_path: Path) -> Reading:
    """As it is shipped, with a base whose weights are not here."""
    base = models.folder(tmp_path / "base", SHIPPED[name][0])
    return read(RECIPES / f"{name}.yaml", [f"base_model={base}"], is_plan=True)


def planned(name: str, card: str, tmp_path: Path) -> Plan:
    recipe = reading(name, tmp_path).recipe
    return plan(recipe, lognormal(5_000, 550, recipe.data.max_length), named(card), 3.0, SHIPPED[name][2])


def test_every_shipped_recipe_is_looked_at() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} - {"demo-cpu"} == {*SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_noted_but_that_the_users_data_is_not_here(name: str, tmp_path: Path) -> None:
    assert [note for note in reading(name, tmp_path).notes if "there is no file" not in note] == []


@pytest.mark.parametrize(("name", "card"), FITS)
def test_it_fits(name: str, card: str, tmp_path: Path) -> None:
    made = planned(name, card, tmp_path)
    assert made.fits
    assert made.advice is not None
    assert made.advice.is_followed


@pytest.mark.parametrize(
    ("name", "card"),
    [("llama-3.1-70b-qlora-80gb", "48GB"), ("llama-3.1-70b-qlora-48gb", "40GB"), ("llama-3.1-8b-lora", "16GB")],
)
def test_the_next_smaller_card_is_too_small(name: str, card: str, tmp_path: Path) -> None:
    assert not planned(name, card, tmp_path).fits


def test_two_gpus_learn_what_one_learns(tmp_path: Path) -> None:
    one, two = (planned(name, "RTX4090", tmp_path) for name in ("llama-3.1-8b-qlora-24gb", "two-gpus"))
    assert one.as_json()["effective_batch_size"] == two.as_json()["effective_batch_size"] == 8
    assert one.speed is not None
    assert two.speed is not None
    assert two.speed.seconds == pytest.approx(one.speed.seconds / 2, rel=0.02)


def test_figures_that_the_comments_give(tmp_path: Path) -> None:
    """Weights, logits, activations and states, in GiB or MiB as the recipes say them."""
    qlora = planned("llama-3.1-8b-qlora-24gb", "24GB", tmp_path)
    assert f"{qlora.memory.parts['weights'] / 2**30:.1f}" == "5.3"
    whole = models.recipe(micro_batch_size=2, max_length=4096, chunked_loss=False)
    assert f"{estimate(qlora.shape, whole, named('24GB')).parts['logits'] / 2**30:.1f}" == "13.7"
    large = planned("llama-3.1-70b-qlora-48gb", "48GB", tmp_path)
    assert f"{large.memory.parts['weights'] / 2**30:.1f}" == "36.8"
    assert 41 < large.memory.total / 2**30 < 43
    assert 0.9 < sum(large.memory.parts[name] for name in ("adapter", "gradients", "optimizer")) / 2 / 2**30 < 1.4
