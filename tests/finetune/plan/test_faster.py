from __future__ import annotations

from pathlib import Path

import pytest

from finetune.plan import show
from finetune.plan.device import named
from finetune.plan.plan import TIGHT, plan
from finetune.plan.units import GIB
from tests.finetune.plan import models
from tests.finetune.plan.rows import lognormal

ROWS = lognormal(2_000, 550, 2048)


@pytest.fixture
def llama_8b(tmp_path: Path) -> Path:
    return models.folder(tmp_path / "8b", models.LLAMA_31_8B)


def test_unused_memory_goes_to_larger_micro_batches_without_checkpointing(llama_8b: Path) -> None:
    recipe = models.recipe(llama_8b, micro_batch_size=1, gradient_accumulation_steps=16)
    made = plan(recipe, ROWS, named("H200"))
    assert made.faster is not None
    assert made.speed is not None
    assert made.faster.recipe.steps.effective_batch_size == 16
    assert made.faster.recipe.data == recipe.data
    assert not made.faster.recipe.memory.gradient_checkpointing
    again = plan(made.faster.recipe, ROWS, named("H200"))
    assert again.speed is not None
    assert again.memory.total == made.faster.total_bytes <= TIGHT * again.device.free_bytes
    assert made.speed.seconds / again.speed.seconds == pytest.approx(made.faster.times)
    assert again.faster is None
    assert f"faster: {made.faster.words}" in show.text(made)


def test_outputs_that_are_kept_are_not_named_where_all_are(llama_8b: Path) -> None:
    """A recipe with both is refused."""
    recipe = models.recipe(llama_8b, gradient_accumulation_steps=16, keep_outputs=("down_proj",))
    found = plan(recipe, ROWS, named("H200")).faster
    assert found is not None
    assert not found.recipe.memory.gradient_checkpointing
    assert found.recipe.memory.keep_outputs == ()
    assert found.words.endswith("gradient_checkpointing: false, without keep_outputs")


def test_on_a_full_card_nothing_is_said(tmp_path: Path) -> None:
    base = models.folder(tmp_path / "70b", models.LLAMA_31_70B)
    made = plan(
        models.recipe(base, max_length=1024, gradient_accumulation_steps=16), lognormal(500, 300, 1024), named("L40S")
    )
    assert made.fits
    assert made.faster is None


def test_nor_where_the_speed_is_not_known_or_it_does_not_fit(llama_8b: Path) -> None:
    recipe = models.recipe(llama_8b, gradient_accumulation_steps=16)
    assert plan(recipe, ROWS, named("80GB")).faster is None
    assert plan(recipe, None, named("H200")).faster is None
    assert plan(models.recipe(llama_8b, micro_batch_size=64), ROWS, named("T4")).faster is None


def test_the_json_has_it(llama_8b: Path) -> None:
    content = plan(models.recipe(llama_8b, gradient_accumulation_steps=8), ROWS, named("RTX4090")).as_json()["faster"]
    assert content["times"] > 1.1
    assert content["total_bytes"] < 24 * GIB
    assert content["change"] == "gradient_checkpointing: false"
