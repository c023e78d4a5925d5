from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.cli import main

WORDS = [
    "run",
    "--no-ceiling",
    "--model",
    "alpha",
    "--concurrency",
    "1,2",
    "--requests",
    "8",
    "--output-tokens",
    "6",
    "--repeats",
    "2",
]


def test_every_request_is_a_row(url: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out, run = tmp_path / "records.parquet", tmp_path / "run.json"
    assert main([*WORDS, "--url", url, "--out", str(out), "--out", str(run)]) == 0
    table = parquet.read_table(out)
    result = json.loads(run.read_text())
    assert table.num_rows == 2 * 2 * 8
    rows = table.to_pylist()
    assert {(row["load"], row["repeat"]) for row in rows} == {
        (load, n) for load in ("1 stream", "2 streams") for n in (0, 1)
    }
    mine = [row["ttft_s"] for row in rows if row["load"] == "2 streams"]
    assert sum(mine) / len(mine) == pytest.approx(result["levels"][1]["pooled"]["ttft_s"]["mean"])
    assert all(row["is_ok"] and row["output_tokens"] == 6 and row["failure"] is None for row in rows)
    assert all(len(row["chunk_times_s"]) == len(row["chunk_chars"]) for row in rows)
    about = json.loads(table.schema.metadata[b"forgegate.benchmark"])
    assert about == {name: result[name] for name in about}
    assert about["plan"] == result["plan"]


def test_without_pyarrow_it_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else found(name, *more)
    )
    assert main([*WORDS, "--url", "http://127.0.0.1:9", "--out", str(tmp_path / "records.parquet")]) == 2
    assert capsys.readouterr().err == (
        "error: --out *.parquet needs pyarrow, which is not installed: `pip install pyarrow`, or name a .json\n"
    )
