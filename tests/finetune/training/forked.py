"""`python -m finetune.training.child` as a fork of a process that has torch loaded, which takes longer than most attempts here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest


class Forked:
    """A process of its own, with what a test asks of `subprocess.Popen`: its pipes, its end, signals."""

    def __init__(self, argv: list[str], env: dict[str, str], errors: Path) -> None:
        ours, stdin = multiprocessing.Pipe(duplex=False)
        stdout, theirs = multiprocessing.Pipe(duplex=False)
        self._process = _server().Process(target=_become_child, args=(argv, env, ours, theirs, str(errors)))
        self._process.start()
        ours.close()
        theirs.close()
        self.stdin = os.fdopen(os.dup(stdin.fileno()), "w")
        self.stdout = os.fdopen(os.dup(stdout.fileno()), "r", encoding="utf-8")
        stdin.close()
        stdout.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> int:
        """Its exit code, negative for a signal. AssertionError where it goes on."""
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"it runs after {timeout_s:g} s"
        return self._process.exitcode


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.finetune.training.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # read when torch is loaded
        ensure_running()
    return context


def _become_child(argv: list[str], env: dict[str, str], stdin: Connection, stdout: Connection, errors: str) -> None:
    os.environ.update(env)
    log = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, fd in enumerate((stdin.fileno(), stdout.fileno(), log)):
        os.dup2(fd, number)
    for connection in (stdin, stdout):
        connection.close()
    sys.stdin = os.fdopen(0, closefd=False)
    from finetune.training.child import main

    raise SystemExit(main(argv))
