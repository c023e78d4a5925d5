"""The recipe in TRL's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.training.schedule import schedule_of
from tests.finetune.training.rig import make_recipe

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def settings(is_mixed: bool = True, dtype: str = "float32", **changes: Any) -> Any:
    import torch

    from finetune.training.model import Place
    from finetune.training.settings import settings_of

    recipe = make_recipe(Path("run"), Path("rows"), **changes)
    place = Place(torch.device("cpu"), getattr(torch, dtype), "sdpa")
    return settings_of(recipe, place, schedule_of(recipe, 100, 1, False), Path("run"), is_mixed)


def test_defaults_that_bite_are_set() -> None:
    found = settings()
    assert found.max_length is None
    assert found.report_to == []
    assert not found.push_to_hub
    assert not found.bf16
    assert not found.logging_nan_inf_filter
    assert not found.packing
    assert not found.activation_checkpointing


@pytest.mark.parametrize(
    ("schedule", "name"), [("cosine", "cosine"), ("linear", "linear"), ("constant", "constant_with_warmup")]
)
def test_schedules(schedule: str, name: str) -> None:
    found = settings(steps={"schedule": schedule, "warmup_ratio": 0.1, "max_steps": 50})
    assert found.lr_scheduler_type == name
    assert found.get_warmup_steps(50) == 5


def test_eight_bits_without_a_gpu_are_said_to_be_32() -> None:
    import torch

    from finetune.training.model import Place
    from finetune.training.settings import optimizer_of

    recipe = make_recipe(Path("run"), Path("rows"), steps={"optimizer": "paged_adamw_8bit"})
    name, note = optimizer_of(recipe, Place(torch.device("cpu"), torch.float32, "sdpa"))
    assert (name, note) == ("adamw_torch", "optimizer: paged_adamw_8bit needs a GPU: 32-bit AdamW is used")
    assert optimizer_of(recipe, Place(torch.device("cuda"), torch.bfloat16, "sdpa")) == ("paged_adamw_8bit", "")


def test_layers_that_all_compute_in_one_type_need_no_autocast() -> None:
    assert settings(dtype="bfloat16").bf16
    assert not settings(dtype="bfloat16", is_mixed=False).bf16
