"""Children, their groups and the guardian: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends import process
from backends.base import LaunchSpec
from backends.errors import SpawnFailed
from backends.logring import LogRing
from backends.process import Launcher, exit_words
from tests.processes import ROOT, eventually, is_alive

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    launcher = await Launcher.start()
    yield launcher
    await launcher.close()


def python(code: str, *args: str) -> LaunchSpec:
    return LaunchSpec((sys.executable, "-S", "-c", code, *args))


async def test_output_and_exit_code(launcher: Launcher) -> None:
    log = LogRing()
    child = await launcher.spawn(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), log)
    assert await child.wait() == 7
    assert log.tail(9) == ("out", "err")
    child.kill()  # after its end: nobody else with its number is hurt
    assert await child.wait() == 7


async def test_environment_is_added_and_stdin_is_empty(launcher: Launcher) -> None:
    log = LogRing()
    code = "import os, sys; print(os.environ['A'], 'PATH' in os.environ, repr(sys.stdin.read()))"
    child = await launcher.spawn(LaunchSpec((sys.executable, "-S", "-c", code), {"A": "1"}), log)
    assert await child.wait() == 0
    assert log.tail(1) == ("1 True ''",)


async def test_a_program_that_does_not_exist(launcher: Launcher) -> None:
    with pytest.raises(SpawnFailed, match="cannot start /no/such/python: No such file or directory"):
        await launcher.spawn(LaunchSpec(("/no/such/python",)), LogRing())


@pytest.mark.parametrize("is_escaping", [False, True], ids=["same group", "own session"])
async def test_a_dead_childs_grandchild_goes_with_it(launcher: Launcher, is_escaping: bool) -> None:
    """Also one that holds the output pipe open and one that left the group."""
    code = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-S', '-c', {SLEEP!r}], start_new_session={is_escaping})\n"
        "print(p.pid, flush=True)\n"
    )
    log = LogRing()
    child = await launcher.spawn(python(code), log)
    start = time.monotonic()
    assert await child.wait() == 0
    assert time.monotonic() - start < 2
    grandchild = int(log.tail(1)[0])
    eventually(lambda: not is_alive(grandchild), 2)


async def test_output_that_does_not_end_is_given_up(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process may hold the pipe for a while: when it waits for a disk, or has a lot of memory to give back."""
    held: list[int] = []

    def pipe() -> tuple[int, int]:
        monkeypatch.undo()  # the next one is not the output's
        monkeypatch.setattr(process, "LAST_OUTPUT_S", 0.3)
        read_fd, write_fd = os.pipe()
        held.append(os.dup(write_fd))
        return read_fd, write_fd

    monkeypatch.setattr(os, "pipe", pipe)
    log = LogRing()
    child = await launcher.spawn(python("print('last')"), log)
    assert await child.wait() == 0
    assert log.tail(1) == ("last",)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "child output"]
    for fd in held:
        os.close(fd)


async def test_close_kills_what_still_runs_and_ends_the_guardian(launcher: Launcher) -> None:
    child = await launcher.spawn(python(SLEEP), LogRing())
    guardian = launcher.guardian_pid
    await launcher.close()
    assert child.end.result() == -signal.SIGKILL
    assert not is_alive(child.pid)
    assert not is_alive(guardian)


async def test_a_killed_guardian_is_replaced_and_told_everything(launcher: Launcher) -> None:
    child = await launcher.spawn(python(SLEEP), LogRing())
    first = launcher.guardian_pid
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(5):
        while launcher.guardian_pid == first:
            await asyncio.sleep(0.02)
    assert is_alive(launcher.guardian_pid)
    child.kill()
    await child.wait()


CONTROL = """
import asyncio, sys
from backends.base import LaunchSpec
from backends.logring import LogRing
from backends.process import Launcher

async def main():
    launcher = await Launcher.start()
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], " \
           "start_new_session=%s); print(p.pid, flush=True); time.sleep(600)"
    pids = [launcher.guardian_pid]
    for escaping in (False, True):
        log = LogRing()
        child = await launcher.spawn(LaunchSpec((sys.executable, "-S", "-c", code % escaping)), log)
        while not log.tail(1):
            await asyncio.sleep(0.01)
        pids += [child.pid, int(log.tail(1)[0])]
    print(*pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_sigkill_of_the_parent_leaves_nothing_within_two_seconds(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CONTROL], cwd=ROOT, stdout=subprocess.PIPE, text=True) as control:
        assert control.stdout is not None
        guardian, *pids = map(int, control.stdout.readline().split())
        assert len(pids) == 4
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a terminal's signals do not end the guardian
            os.kill(guardian, number)
        assert all(map(is_alive, (guardian, *pids)))
        control.kill()
    eventually(lambda: not any(map(is_alive, (guardian, *pids))), 2)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (-9, "killed by SIGKILL"), (-11, "killed by SIGSEGV"), (-200, "killed by signal 200")],
)
def test_how_a_child_ended_in_words(code: int, words: str) -> None:
    assert exit_words(code) == words
