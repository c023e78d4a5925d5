"""Training processes: stopped with a checkpoint, ended at once, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from backends.pythons import child_env
from finetune.errors import TrainError
from finetune.run.attempt import Attempt
from finetune.run.begin import begin
from finetune.run.folder import RunFolder
from finetune.run.oomkills import num_oom_kills
from finetune.training import checkpoints
from tests.finetune.run.rig import FAKE, RECIPE_TEXT, behave, recipe_in

PARENT = """
import sys
from pathlib import Path
from finetune.run.attempt import Attempt
with Attempt(sys.argv[2:], Path(sys.argv[1])) as attempt:
    for event in attempt.events():
        print(attempt.pid, event["event"], flush=True)
"""


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    """Of a first attempt."""
    recipe = recipe_in(tmp_path)
    folder = RunFolder(recipe.output_dir)
    folder.path.mkdir()
    begun = begin(folder, recipe, RECIPE_TEXT, {}, is_resume=False)
    begun.record.begin()
    folder.write_json(folder.attempt(1), folder.read_json(folder.recipe_json))
    return [*FAKE, "--run", str(folder.path), "--attempt", "1"]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stop_leaves_a_whole_checkpoint(tmp_path: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, step_s=0.5)
    with Attempt(argv, tmp_path / "log") as attempt:
        for event in attempt.events():
            if event["event"] == "step" and event["step"] == 3:
                attempt.stop()
                attempt.stop()
    assert (attempt.ended.code, attempt.ended.is_asked) == (143, True)
    (saved,) = checkpoints.whole_ones(tmp_path / "run" / "checkpoints")
    assert 3 <= saved.step < 20


def test_one_that_does_not_stop_is_killed_in_the_end(tmp_path: Path) -> None:
    deaf = [
        sys.executable,
        "-c",
        'import signal,time; signal.signal(15, lambda *_: None); print(\'{"event": "x"}\', flush=True); time.sleep(60)',
    ]
    began = time.monotonic()
    with Attempt(deaf, tmp_path / "log", stop_patience_s=0.1) as attempt:
        for _ in attempt.events():
            attempt.stop()
    assert attempt.ended.code == -signal.SIGKILL
    assert time.monotonic() - began < 10


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    script = "import subprocess; p = subprocess.Popen(['sleep', '60']); print('{\"event\": \"x\", \"pid\": %d}' % p.pid, flush=True)"
    with Attempt([sys.executable, "-c", script], tmp_path / "log") as attempt:
        pids = [event["pid"] for event in attempt.events()]
    assert attempt.ended.code == 0
    assert until(lambda: not is_running(pids[0]))


def test_an_error_here_leaves_nothing_running(tmp_path: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, step_s=0.1)
    with pytest.raises(ZeroDivisionError), Attempt(argv, tmp_path / "log") as attempt:
        raise ZeroDivisionError
    assert not is_running(attempt.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_its_parent(
    tmp_path: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    behave(monkeypatch, step_s=0.5)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), *argv]
    parent = subprocess.Popen(command, env=child_env(), stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as lines:
        pid = next(int(line.split()[0]) for line in lines if line.split()[1] == "step")
        assert is_running(pid)
        os.kill(parent.pid, number)
        parent.wait()
        assert until(lambda: not is_running(pid))
    assert checkpoints.whole_ones(tmp_path / "run" / "checkpoints"), "it saved a checkpoint first"


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainError, match="cannot start /no/such/python"),
        Attempt(["/no/such/python"], tmp_path / "log"),
    ):
        pass


def test_oom_kills_are_read_where_the_kernel_counts_them(tmp_path: Path) -> None:
    assert num_oom_kills(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 5\noom_kill 3\ndrop_pagecache 0\n")
    assert num_oom_kills(tmp_path) == 3


# several ------------------------------------------------------------------------------------------------------------

RANKS = """
import json, os, sys, time
rank = os.environ["RANK"]
print(json.dumps({"event": "hello", "rank": rank, "size": os.environ["WORLD_SIZE"], "port": os.environ["MASTER_PORT"]}), flush=True)
time.sleep(float(sys.argv[1 + int(rank)]))
sys.exit(int(sys.argv[3 + int(rank)]))
"""


def test_of_several_processes_the_first_talks(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", RANKS, "0", "0", "0", "0"]
    with Attempt(argv, tmp_path / "log", num_processes=2) as attempt:
        (event,) = attempt.events()
    assert (event["rank"], event["size"]) == ("0", "2")
    assert '"rank": "1"' in (tmp_path / "log").read_text()
    assert attempt.ended.code == 0


def test_one_of_several_that_fails_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.run.attempt.PEER_PATIENCE_S", 0.2)
    began = time.monotonic()
    with Attempt([sys.executable, "-c", RANKS, "60", "0", "0", "4"], tmp_path / "log", num_processes=2) as attempt:
        list(attempt.events())
    assert time.monotonic() - began < 20
    assert (attempt.ended.code, attempt.ended.is_asked) == (4, False)


def test_the_first_that_has_ended_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.run.attempt.PEER_PATIENCE_S", 0.2)
    began = time.monotonic()
    with Attempt([sys.executable, "-c", RANKS, "0", "60", "0", "0"], tmp_path / "log", num_processes=2) as attempt:
        list(attempt.events())
    assert time.monotonic() - began < 20


def test_all_of_several_are_stopped(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", RANKS, "60", "60", "0", "0"]
    with Attempt(argv, tmp_path / "log", num_processes=2) as attempt:
        for _ in attempt.events():
            attempt.stop()
    assert (attempt.ended.code, attempt.ended.is_asked) == (-signal.SIGTERM, True)
