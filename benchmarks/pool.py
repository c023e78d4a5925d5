"""Connections to one target: hands requests to them without a task or a coroutine for each."""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial

from benchmarks.http1 import Clock, Connection, Exchange
from benchmarks.record import Failure, FailureKind
from benchmarks.target import Target
from benchmarks.traffic.cancellations import Cancel

OnEnd = Callable[[Exchange], None]


class Job:
    """A request on its way."""

    __slots__ = ("cancel", "connection", "data", "is_dropped", "leaver", "on_end")

    def __init__(self, data: bytes, on_end: OnEnd, cancel: Cancel | None) -> None:
        self.data = data
        self.on_end = on_end
        self.cancel = cancel
        self.connection: Connection | None = None
        self.leaver: asyncio.TimerHandle | None = None
        self.is_dropped = False


class Pool:
    """With `keep_alive` a connection is used again, most recently used first; without it every request opens its own, and
    the request's `sent` stamp comes after the connection stands. Of more than `limit` requests at once the rest wait
    their turn, which shows between the times when they were due and when they were sent.
    """

    def __init__(
        self,
        target: Target,
        clock: Clock,
        *,
        keep_alive: bool = True,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 10.0,
        limit: int | None = None,
    ) -> None:
        self.num_connects = 0
        self.num_ended = 0
        """Requests that were answered or failed."""
        self._target = target
        self._clock = clock
        self._keep_alive = keep_alive
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._limit = limit
        self._num_open = 0
        self._idle: list[Connection] = []
        self._waiting: deque[Job] = deque()
        self._running: dict[Connection, float] = {}
        """When each started, oldest first: all have the same time, so one timer for the oldest is enough."""
        self._alarm: asyncio.TimerHandle | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._address: str | None = None
        self._ssl = ssl.create_default_context() if target.scheme == "https" else None

    def submit(self, data: bytes, on_end: OnEnd, cancel: Cancel | None = None) -> Job:
        """Send, or let wait; `on_end` hears of the ended exchange, never from within this call."""
        job = Job(data, on_end, cancel)
        connection = self._take_idle()
        if connection is not None:
            self._begin(job, connection, is_reused=True)
        elif self._limit is None or self._num_open < self._limit:
            self._dial(job)
        else:
            self._waiting.append(job)
        return job

    async def open(self, num: int) -> None:
        """Open up to `num` connections ahead, as far as the server and the limit allow."""
        num = num if self._limit is None else min(num, self._limit)
        while self._keep_alive and self._num_open < num:
            try:
                connection = await self._connect()
            except OSError:
                return  # the requests will tell
            self.num_connects += 1
            self._num_open += 1
            self._idle.append(connection)

    def drop(self, job: Job) -> None:
        """Nobody waits for it any more: its connection is closed."""
        job.is_dropped = True
        job.on_end = _ignore
        if job.connection is not None:
            job.connection.leave()
        elif job in self._waiting:
            self._waiting.remove(job)

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._num_open -= len(self._idle)
        self._idle.clear()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
            self._num_open -= 1
        return None

    def _begin(self, job: Job, connection: Connection, *, is_reused: bool) -> None:
        job.connection = connection
        self._running[connection] = self._clock()
        if self._alarm is None:
            self._set_alarm(self._timeout_s)
        leave_after = None
        if job.cancel is not None:
            leave_after = job.cancel.after_events
            if job.cancel.after_s is not None:
                job.leaver = asyncio.get_running_loop().call_later(job.cancel.after_s, connection.leave)
        connection.begin(job.data, partial(self._ended, job, is_reused), leave_after=leave_after)

    def _ended(self, job: Job, is_reused: bool, exchange: Exchange) -> None:
        connection, job.connection = job.connection, None
        assert connection is not None
        del self._running[connection]
        if job.leaver is not None:
            job.leaver.cancel()
        self._give_back(connection)
        if (
            is_reused
            and not job.is_dropped
            and exchange.failure is not None
            and exchange.failure.kind is FailureKind.RESET
        ):
            # The server closed an idle connection just as it was used again: RFC 9112, 9.3.1 asks clients to retry.
            self._dial(job)
        else:
            self.num_ended += 1
            job.on_end(exchange)

    def _give_back(self, connection: Connection) -> None:
        is_kept = self._keep_alive and connection.is_reusable
        if is_kept and self._waiting:
            self._begin(self._waiting.popleft(), connection, is_reused=True)
        elif is_kept:
            self._idle.append(connection)
        else:
            connection.close()
            self._one_less()

    def _one_less(self) -> None:
        self._num_open -= 1
        if self._waiting:
            self._dial(self._waiting.popleft())

    # Deadlines

    def _set_alarm(self, delay_s: float) -> None:
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._end_overdue)

    def _end_overdue(self) -> None:
        self._alarm = None
        start_s = self._clock() - self._timeout_s
        overdue = [connection for connection, at_s in self._running.items() if at_s <= start_s]
        for connection in overdue:
            connection.abort(Failure(FailureKind.TIMEOUT, f"not complete within {self._timeout_s:g} s"))
        oldest_s = next(iter(self._running.values()), None)
        if oldest_s is not None and self._alarm is None:
            self._set_alarm(oldest_s - start_s)

    # Connecting

    def _dial(self, job: Job) -> None:
        self._num_open += 1
        self.num_connects += 1
        dial = asyncio.get_running_loop().create_task(self._connect_for(job))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _connect_for(self, job: Job) -> None:
        try:
            connection = await self._connect()
        except OSError as exc:
            self._one_less()
            job.on_end(self._unconnected(exc))
        else:
            if job.is_dropped:
                self._give_back(connection)
            else:
                self._begin(job, connection, is_reused=False)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        name = self._target.host if self._ssl else None
        async with asyncio.timeout(self._connect_timeout_s):
            if self._address is None:
                self._address = await self._resolve(loop)
            _, connection = await loop.create_connection(
                lambda: Connection(self._clock), self._address, self._target.port, ssl=self._ssl, server_hostname=name
            )
        return connection

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> str:
        # Once: a look-up for each connection would measure the resolver. The first address that accepts is kept.
        found = await loop.getaddrinfo(self._target.host, self._target.port, type=1)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses[:-1]:
            try:
                _, writer = await asyncio.open_connection(address, self._target.port)
            except OSError:
                continue
            writer.close()
            return address
        return addresses[-1]

    def _unconnected(self, error: OSError) -> Exchange:
        exchange = Exchange()
        exchange.end_s = self._clock()
        exchange.is_ended = True
        exchange.failure = Failure(FailureKind.CONNECT, self._reason(error))
        return exchange

    def _reason(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"no connection within {self._connect_timeout_s:g} s"
        if isinstance(error, socket.gaierror) or not error.errno:
            return error.strerror or str(error) or type(error).__name__
        return os.strerror(error.errno).lower()  # asyncio's own text names the address again, and not the reason


def _ignore(exchange: Exchange) -> None:
    pass
