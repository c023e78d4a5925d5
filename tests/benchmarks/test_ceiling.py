"""What the client reaches, and a run that comes too near to it."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import pytest

from benchmarks import ceiling
from benchmarks.ceiling import CeilingError, measure_ceiling
from benchmarks.cli import main
from benchmarks.commands import run as run_command
from benchmarks.validity import Ceiling

WORDS = ("--model", "alpha", "--concurrency", "2", "--requests", "8", "--output-tokens", "5")


async def test_both_rates_are_measured() -> None:
    found = await measure_ceiling()
    assert found.request_rate > 0
    assert found.chunk_rate > found.request_rate


async def test_a_mock_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CeilingError, match="the mock did not start"):
        await measure_ceiling()


def test_a_run_near_the_ceiling_is_void(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def low(num_processes: int) -> Ceiling:
        return Ceiling(request_rate=1.0, chunk_rate=1e9)

    monkeypatch.setattr(run_command, "measure_ceiling", low)
    out = tmp_path / "run.json"
    assert main(["run", "--url", url, *WORDS, "--out", str(out)]) == 1
    result = orjson.loads(out.read_bytes())
    assert any("of the client's ceiling of 1/s against the mock" in fault for fault in result["faults"])
    assert result["plan"]["client_ceiling"] == {"request_rate": 1.0, "chunk_rate": 1e9}


def test_without_it_nothing_is_judged(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "_mock", None)
    assert main(["run", "--url", url, *WORDS, "--no-ceiling"]) == 0
