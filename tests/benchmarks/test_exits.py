"""How a program ends, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from benchmarks.commands.exits import EXIT_ENVIRONMENT, EXIT_USAGE, ended


class Special(ValueError):
    """Of a kind that has a code of its own."""


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (lambda: 1, 1, ""),
        (raising(SystemExit(2)), 2, ""),
        (raising(SystemExit()), 0, ""),
        (raising(KeyboardInterrupt()), 130, "error: stopped\n"),
        (raising(Special("no such card")), EXIT_ENVIRONMENT, "error: no such card\n"),
        (raising(ValueError("no such file")), EXIT_USAGE, "error: no such file\n"),
    ],
)
def test_it_is_a_code_and_a_line(
    run: Callable[[], int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(run, {Special: EXIT_ENVIRONMENT, ValueError: EXIT_USAGE}) == code
    assert capsys.readouterr().err == said


def test_what_is_not_foreseen_is_no_ordinary_end() -> None:
    with pytest.raises(LookupError):
        ended(raising(LookupError()), {ValueError: EXIT_USAGE})


def test_sigterm_stops_it_as_ctrl_c_does() -> None:
    code = "import time; from benchmarks.commands.exits import ended; exit(ended(lambda: print(flush=True) or time.sleep(60), {}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "\n"
        os.kill(child.pid, signal.SIGTERM)
        assert child.communicate(timeout=30)[1] == "error: stopped\n"
    assert child.returncode == 130
