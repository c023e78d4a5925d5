from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.plan.device import named
from finetune.plan.plan import plan
from finetune.plan.remedy import Remedy
from tests.finetune.plan import models


def remedy(tmp_path: Path, config: dict[str, Any], card: str, **changes: Any) -> Remedy | None:
    base = models.folder(tmp_path / "base", config)
    return plan(models.recipe(base, **changes), None, named(card)).remedy


def test_nothing_is_advised_for_what_fits(tmp_path: Path) -> None:
    assert remedy(tmp_path, models.LLAMA_31_8B, "24GB") is None


@pytest.mark.parametrize(
    ("card", "changes", "start"),
    [
        ("24GB", {"micro_batch_size": 4, "max_length": 4096, "chunked_loss": False}, "chunked_loss: true"),
        ("16GB", {"micro_batch_size": 16}, "micro_batch_size 16 -> 4, gradient_accumulation_steps 1 -> 4: the same"),
        ("12GB", {"micro_batch_size": 32}, "micro_batch_size 32 -> 4, gradient_accumulation_steps 1 -> 8: the same"),
        ("16GB", {"load_in_4bit": False, "max_length": 4096}, "load_in_4bit: true"),
        ("24GB", {"gradient_checkpointing": False, "max_length": 4096}, "gradient_checkpointing: true"),
        ("8GB", {"max_length": 8192}, "sequence_len 8192 -> 1024: longer rows are left out"),
    ],
)
def test_the_cheapest_single_change(tmp_path: Path, card: str, changes: dict[str, Any], start: str) -> None:
    found = remedy(tmp_path, models.LLAMA_31_8B, card, **changes)
    assert found is not None
    assert found.changes[0].startswith(start)
    assert len(found.changes) == 1
    assert found.words.startswith("the cheapest single change that fits")
    assert found.recipe is not None
    assert plan(found.recipe, None, named(card)).fits


def test_several_together(tmp_path: Path) -> None:
    found = remedy(
        tmp_path,
        models.LLAMA_31_8B,
        "10GB",
        micro_batch_size=8,
        max_length=4096,
        load_in_4bit=False,
        chunked_loss=False,
    )
    assert found is not None
    assert len(found.changes) > 2
    assert "together these do" in found.words
    assert found.recipe is not None
    assert plan(found.recipe, None, named("10GB")).fits


def test_70b_in_24_gb_fits_by_no_change_and_the_smallest_card_is_named(tmp_path: Path) -> None:
    found = remedy(tmp_path, models.LLAMA_31_70B, "RTX4090", max_length=2048)
    assert found is not None
    assert (found.changes, found.recipe) == ((), None)
    assert found.card == "RTX A6000"
    assert found.words == "no change of the recipe makes it fit; unchanged it fits RTX A6000"


def test_where_no_card_is_large_enough_a_smaller_model_is_advised(tmp_path: Path) -> None:
    found = remedy(tmp_path, models.llama(16384, 53248, 126, 128, 8, 128256), "80GB")
    assert found is not None
    assert found.words == "no change of the recipe makes it fit; take a smaller model"
