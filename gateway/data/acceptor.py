"""New connections off the socket that all workers share, such that every worker gets its part.

The kernel wakes all who wait, and whoever is fastest takes the connection: of 64 that come at once, one worker of four got 60.
So a worker that has more connections than another one leaves those that wait alone for a moment; what is still there then it
takes, since the others may be busy, or stuck. A connection that nobody takes stays with the socket, which control keeps open:
none is lost when a worker dies.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from gateway.counters import Counters

YIELD_S = 0.002
"""Long enough for an idle worker to wake up, and all that a connection can lose by it."""
EXHAUSTED_S = 0.5
"""Pause when the system has no descriptor or memory left for another connection."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)


class Acceptor:
    """Takes connections from `start` to `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        counters: Counters,
        make: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._counters = counters
        self._make = make
        self._opening: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def start(self) -> None:
        """From now on."""
        self._loop.add_reader(self._listener, self._on_waiting)

    def close(self) -> None:
        """No more; the socket is closed on this worker's side."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _on_waiting(self) -> None:
        if self._counters.is_ahead(len(self._opening)):
            self._wait(YIELD_S)
        else:
            self._take()

    def _take(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has left
        except OSError as exc:
            if exc.errno not in _EXHAUSTED:
                raise
            log.error("no connection can be taken: %s", exc.strerror)
            self._wait(EXHAUSTED_S)
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._open(sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, sock)
        except OSError:
            sock.close()  # gone before it began

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._on_waiting)
        self._take()
