"""What engines say of themselves, on the metrics page of a whole `forgegate serve`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.processes import Served, stub_config

SERIES = 'forgegate_engine_requests_running{engine="demo-0",model="demo"} 0.0'


def wait_for(served: Served, is_there: bool) -> str:
    deadline = time.monotonic() + 20
    while (SERIES in (page := httpx.get(f"{served.url}/metrics").text)) is not is_there:
        assert time.monotonic() < deadline, page
        time.sleep(0.1)
    return page


@pytest.mark.e2e
@pytest.mark.slow
def test_every_workers_page_has_the_engines_counts_while_they_are_up(tmp_path: Path) -> None:
    config = stub_config(tmp_path, "--start-s", "3", workers=2)
    with Served(tmp_path / "home", "--config", str(config)) as served:
        served.wait_ready()
        page = wait_for(served, is_there=True)
        assert "# TYPE forgegate_engine_requests_running gauge" in page
        assert 'forgegate_engine_generated_tokens_total{engine="demo-0",model="demo"} 0.0' in page
        assert page.count("# TYPE forgegate_requests_total") == 1, "one page, not two"
        os.kill(served.engine()["pid"], signal.SIGKILL)
        wait_for(served, is_there=False)
        wait_for(served, is_there=True)
