"""What recipes have against forgetting does what it says: replay, warm-up and cosine, lower rank and alpha, attention only."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.recipe import Source
from tests.finetune.training.rig import adapter_of, attempt, make_recipe, write_rows

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", 40, max_words=8)


def test_a_fifth_of_what_is_trained_is_replayed(tmp_path: Path, rows: Path) -> None:
    general = write_rows(tmp_path / "general.jsonl", 30, seed=3, max_words=8)
    data = {"general": (Source(general),), "general_share": 0.2}
    told = attempt(make_recipe(tmp_path, rows, data=data, steps={"max_steps": 0, "num_epochs": 2.0}), tmp_path)
    (found,) = told.of("data")
    assert (found["num_rows"], found["num_general"]) == (50, 10)
    seen = Counter(row for step in told.of("step") for row in step["rows"])
    assert set(range(1, 41)) <= seen.keys()
    assert len([row for row in seen if row > 40]) == 10
    assert set(seen.values()) == {2}


def test_the_rate_rises_in_the_warm_up_and_falls_as_a_cosine(tmp_path: Path, rows: Path) -> None:
    steps = {"learning_rate": 8e-4, "schedule": "cosine", "warmup_steps": 3, "max_steps": 10}
    told = attempt(make_recipe(tmp_path, rows, steps=steps), tmp_path)
    rates = [step["learning_rate"] for step in told.of("step")]
    rising = [8e-4 * step / 3 for step in range(3)]
    falling = [8e-4 * (1 + math.cos(math.pi * (step - 3) / 7)) / 2 for step in range(3, 10)]
    assert rates == pytest.approx([*rising, *falling])


def test_what_an_adapter_may_change_is_as_large_as_the_recipe_says(tmp_path: Path, rows: Path) -> None:
    lora = {"rank": 4, "alpha": 2.0, "targets": ("q_proj", "k_proj", "v_proj", "o_proj")}
    attempt(make_recipe(tmp_path, rows, lora=lora, steps={"max_steps": 1}), tmp_path)
    found = adapter_of(tmp_path)
    assert {name.split(".")[-3] for name in found} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert {min(value.shape) for value in found.values()} == {4}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 2.0)
