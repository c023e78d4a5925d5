"""Replies that survive what ends a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.variants.journal import Journal, Reply
from finetune.variants.prompting import Pair

SETTINGS = {"model": "m", "seed": 0, "temperature": 1.0}
ONE, TWO = (Reply(number, (1, 2), 120, (Pair("질문", "답 \ud800"),), 1) for number in (0, 3))


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, SETTINGS) as journal:
        journal.add(ONE)
        assert journal.replies == [ONE]
    with Journal(path, SETTINGS) as journal:
        journal.add(TWO)
    with Journal(path, SETTINGS) as journal:
        assert journal.replies == [ONE, TWO]


def test_a_torn_line_is_passed_over_and_the_next_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, SETTINGS) as journal:
        journal.add(ONE)
    path.write_bytes(path.read_bytes() + b'{"request": 1, "see')
    with Journal(path, SETTINGS) as journal:
        assert journal.replies == [ONE]
        journal.add(TWO)
    with Journal(path, SETTINGS) as journal:
        assert journal.replies == [ONE, TWO]


def test_one_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, SETTINGS):
        pass
    with pytest.raises(
        DataUnusable, match=r"is of another run \(temperature was 1\.0\): remove it, or name another --out"
    ):
        Journal(path, SETTINGS | {"temperature": 0.5})
    path.write_text("rows\n")
    with pytest.raises(DataUnusable, match="it is no journal"):
        Journal(path, SETTINGS)
