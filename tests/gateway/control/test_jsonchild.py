from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import LaunchSpec
from backends.errors import SpawnFailed
from backends.process import Launcher
from gateway.control.jsonchild import Outcome, run_child
from tests.processes import eventually, is_alive


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    started = await Launcher.start()
    yield started
    await started.close()


async def run(launcher: Launcher, program: str, limit_s: float = 10.0) -> tuple[Outcome, list[Any]]:
    told: list[Any] = []
    spec = LaunchSpec((sys.executable, "-S", "-c", program))
    return await run_child(launcher, spec, told.append, limit_s), told


async def test_progress_is_told_and_the_last_event_is_the_outcome(launcher: Launcher) -> None:
    program = """
import json, sys
print("a library's greeting")
print(json.dumps({"event": "progress", "stage": "read"}))
print(json.dumps({"event": "stored", "manifest": "m" * 100_000}))
print("warning: x", file=sys.stderr)
sys.exit(2)
"""
    outcome, told = await run(launcher, program)
    assert told == [{"event": "progress", "stage": "read"}]
    assert (outcome.code, outcome.event, len(outcome.last["manifest"])) == (2, "stored", 100_000)
    assert outcome.last_words == "warning: x"


async def test_one_that_dies_is_described(launcher: Launcher) -> None:
    assert (await run(launcher, "import os; os.kill(os.getpid(), 9)"))[
        0
    ].words == "it ended without a word (killed by SIGKILL)"
    assert (await run(launcher, "raise SystemExit('no torch')"))[0].words == "no torch"


async def test_one_that_takes_too_long_is_killed_with_its_children(launcher: Launcher, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    program = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
open({str(note)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
child.wait()
"""
    with pytest.raises(TimeoutError):
        await run(launcher, program, limit_s=1.0)
    for pid in map(int, note.read_text().split()):
        await asyncio.to_thread(eventually, lambda pid=pid: not is_alive(pid))


async def test_one_that_cannot_be_started_costs_no_descriptor(launcher: Launcher) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SpawnFailed, match="cannot start /no/python"):
        await run_child(launcher, LaunchSpec(("/no/python",)), lambda _: None, 1.0)
    assert len(os.listdir("/proc/self/fd")) == before
