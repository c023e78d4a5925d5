"""What a run's last line proposes, by how far its publication went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.recipe import Data, Recipe
from finetune.run.folder import RunFolder
from finetune.run.record import Record
from finetune.run.summary import summary

EXPORTED = {"digest": "3f2a91c04b7d" + "0" * 52}


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ({}, "forgegate adapters publish {run}/export --name NAME"),
        ({"name": "support", "gate": "go"}, "ask it: forgegate chat --model support"),
        ({"name": "support", "gate": "candidate", "version": "support@3f2a91c04b7d"},
         "forgegate gate --alias support --candidate support@3f2a91c04b7d --run {run}"),
        ({"name": "support", "event": "refused"},
         "what the gate saw: {run}/evaluation; change the recipe and train into another folder (--out DIR)"),
    ],
)  # fmt: skip
def test_what_is_next(tmp_path: Path, published: dict[str, Any], words: str) -> None:
    folder = RunFolder(tmp_path)
    record = Record.new(folder, lambda: 0.0)
    record.begin().status = "done"
    record.result, record.exported, record.published = {"num_steps": 3}, EXPORTED, published
    shown = summary(folder, record, Recipe(Path(), Data(()), tmp_path), has_curves=False)
    assert shown.splitlines()[-1] == f"next      {words.format(run=tmp_path)}"
