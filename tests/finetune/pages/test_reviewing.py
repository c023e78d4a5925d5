"""`forgegate data review` as it is typed: what it refuses before a page is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune import data
from finetune.pages.reviewing import JOURNAL


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "배송은 언제 되나요?", "output": "내일 도착할 예정입니다."}) + "\n")
    return path


def refused(*argv: object) -> int:
    return data.main(["review", *map(str, argv)])


def test_what_would_be_lost_is_refused(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("precious\n")
    for out, said in (
        (rows, "is one of the files that are read"),
        (there, "no review wrote it"),
        (tmp_path, "is a folder"),
        (tmp_path / "absent/out.jsonl", "its folder does not exist"),
    ):
        assert refused(rows, "--out", out) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert there.read_text() == "precious\n"
    assert refused(rows, rows, "--out", tmp_path / "o") == 2
    assert "one file is reviewed at a time" in capsys.readouterr().err


def test_a_file_that_changed_meanwhile_is_not_gone_on_with(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / f"out.jsonl{JOURNAL}"
    journal.write_text(json.dumps({"format": "forgegate-review", "content": "sha256:0", "columns": {}}) + "\n")
    assert refused(rows, "--out", tmp_path / "out.jsonl") == 2
    assert "begun with another content" in capsys.readouterr().err
