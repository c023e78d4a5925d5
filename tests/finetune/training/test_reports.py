"""wandb and TensorBoard get what they need, and nothing is asked of a terminal."""

from __future__ import annotations

import sys
import types

import pytest

from finetune.errors import LacksPackage, RecipeUnusable
from finetune.training import reports


def test_without_being_asked_for_nothing_is_set() -> None:
    assert reports.variables((), {"project": "p"}, "run") == {}
    reports.require((), {})


def test_the_recipes_words_reach_wandb_and_no_weights_do() -> None:
    found = reports.variables(
        ("wandb", "tensorboard"), {"project": "p", "name": "n", "mode": "offline", "entity": ""}, "run"
    )
    assert found["WANDB_PROJECT"] == "p"
    assert found["WANDB_MODE"] == "offline"
    assert "WANDB_ENTITY" not in found
    assert found["WANDB_LOG_MODEL"] == "false"
    assert found["TENSORBOARD_LOGGING_DIR"] == "run/tensorboard"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LacksPackage, match="report_to: tensorboard is not installed"):
        reports.require(("tensorboard",), {})


def test_wandb_without_a_key_is_refused_before_it_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: types.SimpleNamespace())
    with pytest.raises(RecipeUnusable, match="would ask for one"):
        reports.require(("wandb",), {})
    reports.require(("wandb",), {"WANDB_MODE": "offline"})
    reports.require(("wandb",), {"WANDB_API_KEY": "k"})
    assert "wandb" not in sys.modules
