"""Each remedy names the line to change, from what the recipe has now."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import finetune
from finetune.gating.remedies import Remedy, remedies

RECIPES = sorted((Path(finetune.__file__).parent / "recipes").glob("*.yaml"))
ORDER = ["more general data", "fewer epochs", "lower rate", "lower rank", "attention only", "lower alpha", "EWC"]
DEMO = {
    "base_model": "demo", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True, "learning_rate": "3e-3", "num_epochs": 2,
    "warmup_steps": 10, "lr_scheduler": "cosine",
}  # fmt: skip


def named(found: tuple[Remedy, ...], name: str) -> list[str]:
    return [change.words for remedy in found if remedy.name == name for change in remedy.changes]


def test_all_are_offered_in_order_with_the_lines_to_write() -> None:
    lines = {key: number for number, key in enumerate(DEMO, start=1)}
    found = remedies(DEMO, lines)
    assert [remedy.name for remedy in found] == ORDER
    assert [[change.words for change in remedy.changes] for remedy in found] == [
        ["add `general: {path: general.jsonl, share: 0.2}`"],
        ["line 6: `num_epochs: 2` -> `num_epochs: 1`"],
        ["line 5: `learning_rate: 3e-3` -> `learning_rate: 1.5e-3`"],
        ["line 2: `lora_r: 16` -> `lora_r: 8`", "line 3: `lora_alpha: 32` -> `lora_alpha: 16`"],
        ["add `lora_target_modules: [q_proj, k_proj, v_proj, o_proj]`", "line 4: take off `lora_target_linear: true`"],
        ["line 3: `lora_alpha: 32` -> `lora_alpha: 16`"],
        ["add `ewc_lambda: 1`", "add `ewc: {path: general.jsonl}`"],
    ]


def test_a_silent_recipe_is_changed_from_what_holds_without_it() -> None:
    found = remedies({})
    assert named(found, "fewer epochs") == ["add `num_epochs: 2`"]
    assert named(found, "lower rate") == ["add `learning_rate: 1e-4`", "add `warmup_ratio: 0.05`"]
    assert named(found, "lower rank") == ["add `lora_r: 8`"]
    assert named(found, "lower alpha") == ["add `lora_alpha: 16`"]


@pytest.mark.parametrize(
    ("general", "words"),
    [
        (
            {"path": "g.jsonl", "share": 0.1},
            ["`general: {path: g.jsonl, share: 0.1}` -> `general: {path: g.jsonl, share: 0.2}`"],
        ),
        ({"path": "g.jsonl"}, ["`general: {path: g.jsonl}` -> `general: {path: g.jsonl, share: 0.3}`"]),
        ({"share": "0.25"}, ["`general: {share: 0.25}` -> `general: {share: 0.3}`"]),
        ({"path": ["a.jsonl", "b.jsonl"], "share": 0.3}, []),
    ],
)
def test_general_data_is_raised_to_thirty_percent(general: object, words: list[str]) -> None:
    found = remedies({"general": general})
    assert named(found, "more general data") == words
    assert named(found, "EWC") == ["add `ewc_lambda: 1`"]


def test_what_is_exhausted_is_left_out() -> None:
    found = remedies({
        "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "general": {"path": "g.jsonl", "share": 0.3}, "num_epochs": 1,
    })  # fmt: skip
    assert [remedy.name for remedy in found] == ["fewer epochs", "lower rate", "lower alpha", "EWC"]
    assert named(found, "fewer epochs") == ["`num_epochs: 1` -> `num_epochs: 0.5`"]


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        ({"num_epochs": 2.5}, "fewer epochs", ["`num_epochs: 2.5` -> `num_epochs: 2`"]),
        ({"max_steps": 400}, "fewer steps", ["`max_steps: 400` -> `max_steps: 200`"]),
        ({"max_steps": 0}, "fewer epochs", ["add `num_epochs: 2`"]),
        ({"learning_rate": 0.0002, "warmup_ratio": 0.1}, "lower rate", ["`learning_rate: 0.0002` -> `learning_rate: 1e-4`"]),
        (
            {"learning_rate": "1e-3", "warmup_steps": 5, "lr_scheduler": "constant"}, "lower rate",
            ["`learning_rate: 1e-3` -> `learning_rate: 5e-4`", "`lr_scheduler: constant` -> `lr_scheduler: cosine`"],
        ),
        ({"lora_r": "auto"}, "lower rank", ["`lora_r: auto` -> `lora_r: 8`"]),
        (
            {"lora_r": 64, "lora_alpha": 32, "peft_use_rslora": True}, "lower rank",
            ["`lora_r: 64` -> `lora_r: 32`", "`lora_alpha: 32` -> `lora_alpha: 22.6274`"],
        ),
        (
            {"lora_target_modules": ["q_proj", "up_proj"]}, "attention only",
            ["`lora_target_modules: [q_proj, up_proj]` -> `lora_target_modules: [q_proj, k_proj, v_proj, o_proj]`"],
        ),
        ({"lora_r": 32}, "lower alpha", ["add `lora_alpha: 32`"]),
        ({"ewc_lambda": 0.5, "ewc": {"path": "g.jsonl"}}, "EWC", ["`ewc_lambda: 0.5` -> `ewc_lambda: 1`"]),
    ],
)  # fmt: skip
def test_each_goes_from_where_the_recipe_is(values: dict[str, object], name: str, words: list[str]) -> None:
    assert named(remedies(values), name) == words


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_line_that_is_proposed_for_a_shipped_recipe_is_yaml_of_its_key(path: Path) -> None:
    for remedy in remedies(yaml.safe_load(path.read_text(encoding="utf-8"))):
        for change in remedy.changes:
            assert change.old != change.new
            if change.new:
                assert list(yaml.safe_load(change.new)) == [change.key]
