"""What all tests share: an environment without the developer's settings, free ports, no processes left behind."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from tests.vllm_environment import Starts

NEEDS = {
    "engine": (
        "llama_cpp",
        "llama-cpp-python is not installed; `python deploy/llamacpp_wheel.py` builds it or says why not",
    ),
    "torch": ("torch", "torch is not installed; `bash tests/run.sh` installs it"),
}
# Every process that a test starts inherits this mark; when its parent has died, the tree no longer shows whose it was.
RUN_MARK = "FORGEGATE_TEST_RUN"
# How this machine gets the engine: the tests that install forgegate anew need it too.
KEPT = {"FORGEGATE_APT", "FORGEGATE_LLAMACPP_INDEX"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, by name of what is missing, the tests that this machine cannot run."""
    absent = {mark: reason for mark, (module, reason) in NEEDS.items() if importlib.util.find_spec(module) is None}
    for item in items:
        for mark, reason in absent.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
    if "PYTEST_XDIST_WORKER" in os.environ:
        longest_first(items)


class Files(LoadFileScheduling):
    """Where several processes run the tests, each file is one's; those that ask the same engines are as one file."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/contract" if nodeid.startswith("tests/contract/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files:
    config.option.loadscopereorder = False  # as `longest_first` has them, not those with most tests first
    return Files(config, log)


def longest_first(items: list[pytest.Item]) -> None:
    """Files by the longest that one of their tests may take, then by their number, so that no process ends long after the others."""
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0.0), float(marker.args[0]) if marker else 0.0)
    nums = Counter(item.path for item in items)
    items.sort(key=lambda item: (-limits[item.path], -nums[item.path]))


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No FORGEGATE_* of the developer reaches a test, and none writes into the real home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FORGEGATE_") and name not in KEPT]:
            patch.delenv(name)
        patch.setenv("FORGEGATE_HOME", str(tmp_path_factory.mktemp("shared-home")))
        patch.setenv(RUN_MARK, uuid.uuid4().hex)
        # Another program in its place would end well, and nobody would miss the tests that follow.
        patch.setattr(os, "execve", _not_here)
        yield


def _not_here(path: str, *rest: object) -> None:
    raise AssertionError(f"a test was to become {path}: give it a process of its own")


@pytest.fixture
def forgegate_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own; without it tests share one for the whole run, with the models derived so far."""
    home = tmp_path / "home"
    monkeypatch.setenv("FORGEGATE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def vllm_starts() -> Starts:
    """Who starts vLLM says so here: more than six starts in one run are too many."""
    return Starts(6)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that gives TCP ports of 127.0.0.1 that nobody listens on, each once."""
    given: set[int] = set()

    def take() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return take


def processes_of_this_run() -> dict[int, str]:
    """pid -> command of every live process, besides this one, that carries this run's mark."""
    mark = (RUN_MARK, os.environ[RUN_MARK])
    found = {}
    for process in psutil.process_iter(["pid", "status"]):
        if process.info["pid"] == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            if mark in process.environ().items():
                found[process.info["pid"]] = " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
    return found


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """After an end-to-end test no process that it started is alive, orphaned grandchildren included."""
    if not request.node.get_closest_marker("e2e"):
        yield
        return
    before = processes_of_this_run()
    yield
    deadline = time.monotonic() + 5
    while (left := {pid: line for pid, line in processes_of_this_run().items() if pid not in before}) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    for pid in left:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    assert not left, f"still running 5 s after the test: {left}"
