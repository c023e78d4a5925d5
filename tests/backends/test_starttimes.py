from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.starttimes import MAX_KEYS, StartTimes


def test_the_last_start_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "models" / "start-times.json"
    times = StartTimes(path)
    assert times.last("a") is None
    times.note("a", 48.04)
    times.note("b", 3)
    times.note("a", 51.26)
    assert (times.last("a"), times.last("b")) == (51.3, 3.0)
    again = StartTimes(path)
    assert (again.last("a"), again.last("b"), again.last("c")) == (51.3, 3.0, None)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    times = StartTimes(tmp_path / "t.json")
    for number in range(MAX_KEYS):
        times.note(str(number), 1.0)
    times.note("0", 2.0)
    times.note("new", 3.0)
    assert (times.last("0"), times.last("1"), times.last("2"), times.last("new")) == (2.0, None, 1.0, 3.0)
    assert len(json.loads((tmp_path / "t.json").read_text())) == MAX_KEYS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": "x", "b": NaN, "c": -1, "d": true, "e": Infinity}',
    ],
)
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    times = StartTimes(path)
    assert [times.last(key) for key in "abcde"] == [None] * 5
    times.note("a", 1.0)
    assert StartTimes(path).last("a") == 1.0


def test_a_folder_that_cannot_be_written_costs_only_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    times = StartTimes(tmp_path / "file" / "t.json")
    times.note("a", 1.0)
    assert times.last("a") == 1.0
