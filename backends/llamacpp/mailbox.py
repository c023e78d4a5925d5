"""From the engine's thread to the event loop, without the one holding up the other.

`loop.call_soon_threadsafe` wakes the loop by a system call for which Python lets go of the interpreter lock: the loop's
thread takes it at once, and the engine's thread, which wants to start the next step, waits until the text of the last one
is made. Here the lock is kept over that call, so that the loop gets it when the engine's thread enters llama_decode.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# ctypes.PyDLL: calls keep the interpreter lock. The pipe is non-blocking, so none of them can take long.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t


class Mailbox(Generic[T]):
    """Items put in by one thread are handed to `take` on the loop's thread, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[T], None]) -> None:
        """Called on the loop's thread."""
        self._loop = loop
        self._take = take
        self._items: deque[T] = deque()
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        loop.add_reader(self._reader, self._empty)

    def put(self, item: T) -> None:
        """Any thread. A full pipe needs no further byte: the loop is awake."""
        self._items.append(item)
        _write(self._writer, b"\0", 1)

    def close(self) -> None:
        """Hand over what is left. On the loop's thread, when nobody puts any more."""
        self._loop.remove_reader(self._reader)
        self._hand_over()
        os.close(self._reader)
        os.close(self._writer)

    def _empty(self) -> None:
        os.read(self._reader, 4096)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._items:
            self._take(self._items.popleft())
