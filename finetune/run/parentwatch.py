"""A training process does not outlive whoever started it: its standard input is a pipe that the parent holds open.

Works for every death of the parent, SIGKILL included, and on every system.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable

PATIENCE_S = 600.0
"""For the checkpoint, after the parent's death."""


def watch(on_gone: Callable[[], None] | None = None, fd: int = 0, patience_s: float = PATIENCE_S) -> bool:
    """Follow the pipe from a thread; at its end call `on_gone`, by default SIGTERM to this process, whose handler saves a
    checkpoint. What still runs `patience_s` later is killed, with its process group where it leads one. False, and nothing
    is watched, where `fd` is no pipe: whoever starts the process by hand ends it by hand."""
    if not _is_pipe(fd):
        return False
    arguments = (fd, on_gone or _terminate, patience_s)
    threading.Thread(target=_follow, args=arguments, name="parent watch", daemon=True).start()
    return True


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _follow(fd: int, on_gone: Callable[[], None], patience_s: float) -> None:
    while os.read(fd, 4096):
        pass
    _mute()
    on_gone()
    time.sleep(patience_s)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _mute() -> None:
    """Nobody reads what is written any more: a full or broken pipe must not keep the checkpoint from being written."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
    os.close(sink)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
