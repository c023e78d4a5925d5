"""Calls at instants of the monotonic clock, more punctual than an event loop's own timers. Those count whole milliseconds
(libuv) or sleep past them: a sleep after each request delivers three quarters of 1,000 requests per second, and at 2,000
libuv does not sleep at all.
"""

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

SPIN_S = 0.0015
"""Where there is no kernel timer to wait for: the last part of a wait, in which the loop turns without sleeping."""

Call = Callable[[], None]


class Timer(Protocol):
    """Runs calls when they are due."""

    def at(self, due_s: float, call: Call) -> None:
        """Call once at `due_s`, or at once where that is past; never from within this call."""


class Pacer:
    """On a running event loop; close it at the end."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._alarm: _Alarm = _TimerFd(self._run) if sys.platform == "linux" else _Spin(self._run)
        self._armed_s: float | None = None

    def at(self, due_s: float, call: Call) -> None:
        """As Timer."""
        heapq.heappush(self._due, (due_s, next(self._numbers), call))
        if self._armed_s is None or due_s < self._armed_s:
            self._arm()

    def close(self) -> None:
        """No further call."""
        self._due.clear()
        self._alarm.close()

    def _run(self) -> None:
        self._armed_s = None
        now_s = time.monotonic()
        due = []
        while self._due and self._due[0][0] <= now_s:
            due.append(heapq.heappop(self._due)[2])
        for call in due:
            call()
        if self._due and self._armed_s is None:
            self._arm()

    def _arm(self) -> None:
        self._armed_s = self._due[0][0]
        self._alarm.set(self._armed_s)


class _Alarm(Protocol):
    def set(self, at_s: float) -> None:
        """Ring once, at that time; replaces what was set before."""

    def close(self) -> None:
        """Never ring again."""


class _Spin:
    """A timer of the loop for the most of a wait, and then turns of the loop without a pause."""

    def __init__(self, ring: Call) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._at_s = 0.0

    def set(self, at_s: float) -> None:
        self.close()
        self._at_s = at_s
        self._wait()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _wait(self) -> None:
        left_s = self._at_s - time.monotonic()
        if left_s > SPIN_S:
            self._handle = self._loop.call_later(left_s - SPIN_S, self._wait)
        else:
            self._handle = self._loop.call_soon(self._ring if left_s <= 0 else self._wait)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class _TimerFd:
    """The kernel's own timer as a file that the loop waits for (timerfd_create(2)); Python has it from 3.13 on."""

    _MONOTONIC, _ABSOLUTE = 1, 1

    def __init__(self, ring: Call) -> None:
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(self._MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "no kernel timer: " + os.strerror(ctypes.get_errno()))
        self._spec = _TimerSpec()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._rung)

    def set(self, at_s: float) -> None:
        seconds = max(int(at_s), 0)
        self._spec.value.seconds = seconds
        self._spec.value.nanoseconds = max(int((at_s - seconds) * 1e9), 1)  # 0 in both would stop it
        self._libc.timerfd_settime(self._fd, self._ABSOLUTE, ctypes.byref(self._spec), None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rung(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew between the loop's wake-up and here
            return
        self._ring()
