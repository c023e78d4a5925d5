"""The swap benchmark's short form: an alias flips under load while an engine is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.processes import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]


@pytest.mark.timeout(150)
def test_an_alias_flips_under_load_while_an_engine_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "swap.json"
    words = ["--seconds", "7", "--streams", "16", "--flips", "6", "--kills", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.adapter_swap", *words],
        cwd=ROOT, capture_output=True, timeout=130, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    result = orjson.loads(out.read_bytes())
    assert result["is_met"]
    assert len(result["checks"]) == 8
    assert set(result["endings"]) <= {"answered", "error event"}
    assert result["endings"]["answered"] > 16
    assert len({name.partition(" ")[0] for name in result["by_version"]}) >= 2
    assert len(result["kills"]) == 1
