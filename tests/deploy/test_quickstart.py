"""quickstart.sh as a newcomer runs it: from a checkout in a folder with a space in its name, called from somewhere else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import interruptible

ROOT = Path(__file__).resolve().parents[2]
SECOND_RUN_S = 20.0

pytestmark = [pytest.mark.timeout(900)]


def quickstart(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(checkout / "deploy/quickstart.sh"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=850, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without environments and caches."""
    copy = tmp_path_factory.mktemp("quick start") / "forgegate"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis")
    )
    return copy


@pytest.fixture(scope="module")
def port_pair(free_port: Callable[[], int]) -> int:
    """A port whose next one is free too: the admin API gets it."""
    while True:
        first = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
        return first


@pytest.fixture(scope="module")
def first_run(checkout: Path, port_pair: int) -> subprocess.CompletedProcess[str]:
    return quickstart(checkout, "--check", "--port", str(port_pair), "--backend=cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port"], "--port needs a value"),
        (["--port", "http"], "--port is a number, not: http"),
        (["--port=65535"], "--port is between 1 and 65534"),
        (["--backend", "tpu"], "--backend is one of auto, cpu, cuda, vulkan, metal, not: tpu"),
        (["--fast"], "unknown argument: --fast"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], message: str) -> None:
    done = quickstart(ROOT, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_taken_port_is_named_before_anything_is_built() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = quickstart(ROOT, "--port", str(port))
    assert done.returncode == 3
    assert f"port {port} cannot be used" in done.stderr


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.engine
class TestForReal:
    def test_the_first_run_answers(self, first_run: subprocess.CompletedProcess[str], port_pair: int) -> None:
        assert first_run.returncode == 0, first_run.stderr[-4000:]
        assert re.search(r"^  demo   \S", first_run.stdout, re.MULTILINE)
        assert f'base_url="http://127.0.0.1:{port_pair}/v1"' in first_run.stdout

    @pytest.mark.usefixtures("first_run")
    def test_the_second_run_is_quick(self, checkout: Path, port_pair: int) -> None:
        began = time.monotonic()
        done = quickstart(checkout, "--check", "--port", str(port_pair), "--backend=cpu")
        assert done.returncode == 0, done.stderr[-4000:]
        assert time.monotonic() - began < SECOND_RUN_S

    @pytest.mark.usefixtures("first_run")
    def test_ctrl_c_stops_it_cleanly(self, checkout: Path, port_pair: int, tmp_path: Path) -> None:
        command = ["bash", str(checkout / "deploy/quickstart.sh"), "--port", str(port_pair), "--backend=cpu"]
        with (tmp_path / "out").open("w+") as out:
            with interruptible():
                child = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
            try:
                while "Serving until Ctrl-C" not in (tmp_path / "out").read_text():
                    assert child.poll() is None, (tmp_path / "out").read_text()
                    time.sleep(0.1)
                os.killpg(child.pid, signal.SIGINT)  # what a terminal does
                assert child.wait(timeout=40) == 0
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
