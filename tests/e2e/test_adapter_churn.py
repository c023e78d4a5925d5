"""The churn benchmark's short form: more adapters than places, all served."""

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
def test_more_adapters_than_places(tmp_path: Path) -> None:
    out = tmp_path / "churn.json"
    words = ["--seconds", "6", "--names", "4", "--slots", "2", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.adapter_churn", *words],
        cwd=ROOT, capture_output=True, timeout=130, env=dict(os.environ),
    )  # fmt: skip
    result = orjson.loads(out.read_bytes())
    judged = {check["name"].partition(" ")[0]: check["is_met"] for check in result["checks"]}
    assert done.returncode in (0, 1), done.stdout.decode() + done.stderr.decode()
    # A few seconds are too short to judge a hit rate by, and memory: caches are still being filled.
    assert {judged["all"], judged["engines"], judged["no"]} == {True}, done.stdout.decode()
    assert result["cold_ttft_s"]["num"] >= 2
    assert result["warm_ttft_s"]["num"] >= 1
