"""The chaos campaign's short form: workers and engines killed under load, every request accounted for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.processes import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]


@pytest.mark.timeout(240)
def test_workers_and_engines_are_killed_under_load(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--seconds", "10", "--clients", "12", "--out", str(out)],
        cwd=ROOT, capture_output=True, timeout=220, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    result = orjson.loads(out.read_bytes())
    assert result["is_met"]
    assert result["num_violations"] == 0
    assert {kill["role"] for kill in result["kills"]} == {"worker", "engine"}
    assert all(check["is_met"] for check in result["checks"])
    assert len(result["checks"]) == 6
    endings = {ending for counts in result["requests"].values() for ending, num in counts.items() if num}
    assert {"answered", "cancelled by the client"} <= endings
    assert out.with_suffix(".md").read_text().startswith("4 workers and 2 llama.cpp engines (demo), 12 clients")
