"""The table of keys: nothing that an Axolotl user writes is unknown, and what is said of each is true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.recipe import keys
from finetune.recipe.honoured import HONOURED
from finetune.recipe.noted import NOTED
from finetune.recipe.recipe import Data, Recipe
from finetune.recipe.refused import HARMLESS, REFUSED
from tests.finetune.recipe.conftest import Problems, Read

AXOLOTL = [
    name
    for line in (Path(__file__).parent / "axolotl-keys.txt").read_text().splitlines()
    if not line.startswith("#")
    for name in line.split()
]
MEAN_NO = {"shuffle_merged_datasets", "peft_init_lora_weights"}
"""Where false is what is refused."""


def test_every_key_of_axolotl_stands_in_one_table() -> None:
    assert [name for name in AXOLOTL if sum(name in table for table in (HONOURED, NOTED, REFUSED)) != 1] == []
    assert len(AXOLOTL) > 390


def test_the_table_as_json() -> None:
    table = {entry["name"]: entry for entry in json.loads(json.dumps(keys.as_json()))}
    assert {*AXOLOTL} <= {*table}
    assert table["lora_r"] == {
        "name": "lora_r", "status": "honoured", "words": HONOURED["lora_r"].words, "takes": "whole number 1 to 512 | auto",
        "field": "lora.rank", "default": "16",
    }  # fmt: skip
    assert {entry["status"] for entry in table.values()} == {"honoured", "noted", "refused"}
    assert all(entry["words"] for entry in table.values())


def test_the_table_as_text_names_them_all() -> None:
    text = keys.as_text()
    assert [name for name in AXOLOTL if name not in text] == []
    assert max(map(len, text.splitlines())) < 140
    assert "learning_rate: number above 0, at most 1 (default 0.0002)" in text


def test_defaults_are_those_of_a_recipe_that_says_nothing(read_text: Read) -> None:
    said = read_text().recipe
    plain = Recipe(said.base, Data(said.data.sources), said.output_dir, base_name="demo", folder=said.folder)
    assert said == plain
    assert said.output_dir == Path.cwd() / "outputs" / "recipe"
    table = {entry.name: entry.default for entry in keys.entries()}
    assert (table["train_on_inputs"], table["num_epochs"], table["sample_packing"]) == ("false", "3", "true")


def test_refused_keys_say_why(problems_of: Problems) -> None:
    found = problems_of("".join(f"{name}: something\n" for name in REFUSED))
    assert found == [f"{line}: {name}: refused: {why}" for line, (name, why) in enumerate(REFUSED.items(), 5)]


@pytest.mark.parametrize("nothing", ["", "[]", "{}", "false", "'false'", "[false]", "{enabled: no}"])
def test_refused_keys_pass_where_they_ask_for_nothing(read_text: Read, nothing: str) -> None:
    asks_by_no = MEAN_NO if "false" in nothing or "no" in nothing else set()
    reading = read_text("".join(f"{name}: {nothing}\n" for name in REFUSED if name not in asks_by_no))
    assert reading == read_text()


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_refused_keys_pass_with_what_is_done_anyway(read_text: Read, problems_of: Problems, name: str) -> None:
    for harmless in HARMLESS[name]:
        assert read_text(f"{name}: {harmless}\n") == read_text()
        assert read_text(f"{name}: [{harmless}]\n") == read_text()
    assert len(problems_of(f"{name}: [{HARMLESS[name][0]}, something]\n")) == 1


@pytest.mark.parametrize("name", sorted(MEAN_NO))
def test_where_no_is_what_is_refused(problems_of: Problems, name: str) -> None:
    assert problems_of(f"{name}: false\n") == [f"5: {name}: refused: {REFUSED[name]}"]


def test_zero_is_no_nothing_for_adam(problems_of: Problems) -> None:
    assert problems_of("adam_beta1: 0\n") == [f"5: adam_beta1: refused: {REFUSED['adam_beta1']}"]


def test_noted_keys_are_said_and_change_nothing(read_text: Read) -> None:
    reading = read_text("".join(f"{name}: 3\n" for name in NOTED))
    assert reading.recipe == read_text().recipe
    assert list(reading.notes) == [f"{name}: without effect: {why}" for name, why in NOTED.items()]
    assert read_text("".join(f"{name}:\n" for name in NOTED)) == read_text()


def test_plugins_that_change_the_speed_only_are_accepted(read_text: Read, problems_of: Problems) -> None:
    read_text("plugins: [axolotl.integrations.liger.LigerPlugin]\n")
    assert "hooks" in problems_of("plugins: [axolotl.integrations.liger.LigerPlugin, mine.Plugin]\n")[0]


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("lora_rr", "lora_r"), ("learning-rate", "learning_rate"), ("Learning_Rate", "learning_rate"),
        ("microbatch_size", "micro_batch_size"),
        ("num_epoch", "num_epochs"), ("per_device_train_batch_size", "micro_batch_size"), ("num_train_epochs", "num_epochs"),
        ("max_seq_length", "sequence_len"), ("lr_scheduler_type", "lr_scheduler"), ("target_modules", "lora_target_modules"),
        ("flash_attn", "flash_attention"), ("valset_size", "val_set_size"), ("dataset", "datasets"), ("deep_speed", "deepspeed"),
        ("output_directory", "output_dir"), ("gradient_checkpoint", "gradient_checkpointing"), ("optim", "optimizer"),
    ],
)  # fmt: skip
def test_the_key_that_was_meant(problems_of: Problems, name: str, close: str) -> None:
    assert problems_of(f"{name}: 3\n") == [f"5: {name}: unknown key; did you mean {close}?"]


def test_a_key_like_no_other(problems_of: Problems) -> None:
    assert problems_of("xyzzy: 3\n") == ["5: xyzzy: unknown key: `forgegate train --keys` lists them"]


def test_names_of_other_tools_mean_keys_that_there_are() -> None:
    assert {*keys.ELSEWHERE.values()} <= {*HONOURED}
    assert not {*keys.ELSEWHERE} & {*HONOURED, *NOTED, *REFUSED}
    assert {*HARMLESS} <= {*REFUSED}
