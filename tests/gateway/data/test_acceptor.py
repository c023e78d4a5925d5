"""Several acceptors on one socket, as several workers have it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.counters import Counters
from gateway.data import acceptor
from gateway.data.acceptor import Acceptor

NUM_WORKERS = 4


class Counting(asyncio.Protocol):
    """A client connection that does nothing but count."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._counters.add_connections(1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counters.add_connections(-1)


class Workers:
    """Acceptors of several columns in one process, and clients."""

    def __init__(self) -> None:
        self.fd, self.reader = Counters.create(1, NUM_WORKERS)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.views = [Counters.attach(self.fd, 1, NUM_WORKERS, column) for column in range(NUM_WORKERS)]
        self.acceptors: dict[int, Acceptor] = {}
        self.clients: list[socket.socket] = []

    def start(self, column: int) -> None:
        view = self.views[column]
        view.set_accepting(True)
        acceptor = Acceptor(asyncio.get_running_loop(), self.listener.dup(), view, lambda: Counting(view))
        self.acceptors[column] = acceptor
        acceptor.start()

    async def connect(self, num: int) -> list[int]:
        """How many connections each worker has once `num` more stand."""
        self.clients += [socket.create_connection(self.listener.getsockname()) for _ in range(num)]
        async with asyncio.timeout(10):
            while sum(self.reader.connections().values()) < len(self.clients):
                await asyncio.sleep(0.005)
        return sorted(self.reader.connections().values())

    def close(self) -> None:
        for one in [*self.acceptors.values(), *self.clients, self.listener]:
            one.close()


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()
    await asyncio.sleep(0.05)
    for view in (*workers.views, workers.reader):
        view.close()
    os.close(workers.fd)


async def test_a_burst_falls_on_all_workers(workers: Workers) -> None:
    for column in range(NUM_WORKERS):
        workers.start(column)
    few, *_, many = await workers.connect(64)
    assert many - few <= 4


async def test_one_that_comes_later_gets_what_is_new_until_it_has_as_many(workers: Workers) -> None:
    for column in (0, 1):
        workers.start(column)
    await workers.connect(20)
    workers.start(2)
    for _ in range(10):
        few, *_ = await workers.connect(1)
    assert few >= 9
    workers.acceptors.pop(2).close()
    workers.reader.clear_column(2)  # as control does for a dead worker


async def test_one_that_is_stuck_keeps_nobody_waiting(workers: Workers) -> None:
    workers.start(0)
    workers.views[1].set_accepting(True)  # and takes none
    begun = asyncio.get_running_loop().time()
    assert await workers.connect(20) == [0, 20]
    assert asyncio.get_running_loop().time() - begun < 1


async def test_without_descriptors_it_waits_and_goes_on(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "EXHAUSTED_S", 0.05)
    num_failures = 0

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            nonlocal num_failures
            num_failures += 1
            if num_failures <= 2:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    view = workers.views[0]
    view.set_accepting(True)
    exhausted = Exhausted(fileno=workers.listener.dup().detach())
    workers.acceptors[0] = Acceptor(asyncio.get_running_loop(), exhausted, view, lambda: Counting(view))
    workers.acceptors[0].start()
    assert await workers.connect(1) == [1]
    assert caplog.messages == ["no connection can be taken: Too many open files"] * 2
