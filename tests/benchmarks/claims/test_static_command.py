"""`bench static`: what it refuses, and a short real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cli


def test_a_folder_without_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["static", "--model", str(tmp_path)]) == 2
    assert "holds no config.json" in capsys.readouterr().err


def test_a_config_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert cli.main(["static", "--model", str(tmp_path)]) == 2
    assert "does not say vocab_size" in capsys.readouterr().err


def test_an_interpreter_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["static", "--python", "nowhere/python"]) == 3
    assert "nowhere/python cannot be started" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.slow
def test_sizes_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "static.json"
    words = [
        "static",
        "--batch",
        "1,4",
        "--requests",
        "4",
        "--output-tokens",
        "2-8",
        "--repeats",
        "1",
        "--out",
        str(out),
    ]
    assert cli.main(words) == 0
    result = json.loads(out.read_text())
    alone, four = result["sizes"]
    assert alone["useful_share"] == 1.0  # nothing is padded where nobody waits for anybody
    assert four["useful_share"] <= 1.0
    assert result["best_batch"] in (1, 4)
    assert "useful tok/s" in capsys.readouterr().out
