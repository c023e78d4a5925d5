"""Control or its guardian is killed while an engine sleeps or starts: nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.processes import ROOT, eventually, is_alive

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@contextmanager
def control(state: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    command = [sys.executable, "-m", "tests.backends.sleeping_control", state]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("state", ["asleep", "starting"])
def test_sigkill_of_control(state: str) -> None:
    with control(state) as (process, pids):
        assert is_alive(pids["engine"])
        process.kill()
        process.wait()
        eventually(lambda: not any(map(is_alive, pids.values())), 3)


@pytest.mark.parametrize("state", ["asleep", "starting"])
def test_sigkill_of_the_guardian_then_of_control(state: str) -> None:
    with control(state) as (process, pids):
        os.kill(pids["guardian"], signal.SIGKILL)
        (successor,) = eventually(lambda: _guardians(process.pid, pids["guardian"]))
        assert is_alive(pids["engine"])
        process.kill()
        process.wait()
        eventually(lambda: not is_alive(pids["engine"]) and not is_alive(successor), 3)


def _guardians(control_pid: int, but: int) -> list[int]:
    children = psutil.Process(control_pid).children()
    return [
        child.pid for child in children if child.pid != but and any("guardian.py" in word for word in child.cmdline())
    ]
