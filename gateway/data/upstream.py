"""Pooled keep-alive connections to engines, at asyncio-protocol level.

    idle --take--> sending --head--> relaying --is_done--> idle (give) or closed
                      `------- lost / bad answer --------> closed

What an engine sends is handed on inside `data_received`: no task, no queue, no copy that the framing does not force.
An idle connection that receives bytes, or that its peer closed, is dropped.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from gateway.data.framing import MAX_HEAD_BYTES, BodyRelay, ResponseHead, parse_head
from gateway.data.heads import HeadTable, split_length
from gateway.data.snapshot import Address
from gateway.errors import BadAnswer, EngineFailed

IDLE_S = 4.0
"""Below the 5 s after which uvicorn, hence vLLM, closes an idle connection."""
MAX_IDLE_PER_ENGINE = 1024


class Receiver(Protocol):
    """Who waits for the answer on a connection: one exchange."""

    def on_head(self, head: ResponseHead, length: int, /) -> BodyRelay:
        """The head is complete, `length` -1 without a content-length: return what its body is to be fed to."""
        ...

    def on_complete(self, can_reuse: bool, /) -> None:
        """The answer is whole; the connection is already back in the pool or closed."""
        ...

    def on_lost(self, has_answered: bool, /) -> None:
        """The engine closed the connection early; `has_answered`: after at least one byte of this answer."""
        ...

    def on_bad_answer(self, error: EngineFailed, /) -> None:
        """The engine's bytes are no valid answer, or a stream that ends with an error event; the connection is closed."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection; at most one request on it at a time."""

    __slots__ = (
        "_body", "_can_reuse", "_head", "_pool", "_receiver", "address", "idle_since_s", "is_reused", "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool, address: Address) -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self._head = b""
        self._body: BodyRelay | None = None
        self._can_reuse = False
        self.address = address
        self.transport: asyncio.Transport
        self.is_reused = False
        """It already served a request, so the engine may have closed it while ours was on its way."""
        self.idle_since_s = 0.0

    def send(self, receiver: Receiver, request: bytes) -> None:
        """Send one request; everything that follows reaches `receiver` until it is complete, lost or closed."""
        self._receiver = receiver
        self.transport.write(request)

    def close(self) -> None:
        """Drop the connection at once, whatever is in flight; the receiver hears nothing more."""
        self._receiver = None
        self._pool.forget(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        body = self._body
        try:
            if body is None:
                self._head_received(data)
                return
            body.feed(data)
        except EngineFailed as error:
            self._refuse(error)
            return
        if body.is_done:
            self._complete(body)

    def eof_received(self) -> None:
        """Let the transport close; `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, body = self._receiver, self._body
        self._pool.forget(self)
        if receiver is None:
            return
        if body is not None and exc is None:
            try:
                body.end()
            except EngineFailed as error:
                self._refuse(error)
                return
            if body.is_done:
                self._complete(body)
                return
        self._receiver = None
        receiver.on_lost(body is not None or bool(self._head))

    def _head_received(self, data: bytes) -> None:
        if self._receiver is None:
            self.close()  # nobody asked: the connection is out of step
            return
        if self._head:
            data = self._head + data
        while True:
            head_bytes, end, rest = data.partition(b"\r\n\r\n")
            if len(head_bytes) > MAX_HEAD_BYTES:
                raise BadAnswer(f"the engine's answer has a head above {MAX_HEAD_BYTES} bytes")
            if not end:
                self._head = data
                return
            key, length = split_length(head_bytes)
            head = self._pool.heads.get(key)
            if head is None:
                head = parse_head(head_bytes)
                self._pool.heads.add(key, head)
            if head.status >= 200:
                self._begin_body(head, length if length >= 0 else head.content_length, rest)
                return
            data = self._head = rest  # 100 Continue, 103 Early Hints: the answer proper follows

    def _begin_body(self, head: ResponseHead, length: int, rest: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None
        self._can_reuse = head.can_reuse
        body = self._body = receiver.on_head(head, length)
        if rest:
            body.feed(rest)
        if body.is_done:
            self._complete(body)

    def _complete(self, body: BodyRelay) -> None:
        receiver = self._receiver
        assert receiver is not None
        can_reuse = self._can_reuse and not body.has_extra and not self.transport.is_closing()
        self._receiver, self._body, self._head = None, None, b""
        self.is_reused = True
        if can_reuse:
            self._pool.give(self)
        else:
            self.close()
        receiver.on_complete(can_reuse)

    def _refuse(self, error: EngineFailed) -> None:
        receiver = self._receiver
        self.close()
        if receiver is not None:
            receiver.on_bad_answer(error)


class Pool:
    """All connections of one worker to all engines."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        make_ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._make_ssl_context = make_ssl_context
        self._ssl_context: ssl.SSLContext | None = None
        self.heads: HeadTable[ResponseHead] = HeadTable()
        self._idle: dict[Address, deque[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()

    def take(self, address: Address) -> UpstreamConnection | None:
        """Return the idle connection that was used last, or None: then `dial`."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def dial(self, address: Address) -> UpstreamConnection:
        """Open a new connection. Raises OSError (ssl.SSLError included)."""
        context = self._tls() if address.is_tls else None
        _, connection = await self._loop.create_connection(
            lambda: UpstreamConnection(self, address),
            address.host,
            address.port,
            ssl=context,
            server_hostname=address.host if address.is_tls else None,
        )
        if connection.transport.is_closing():
            raise ConnectionResetError("closed as soon as it was open")
        self._open.add(connection)
        return connection

    def give(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose answer is whole."""
        idle = self._idle.setdefault(connection.address, deque())
        if len(idle) >= MAX_IDLE_PER_ENGINE:
            connection.close()
            return
        connection.idle_since_s = self._clock()
        idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is closed or about to be."""
        self._open.discard(connection)
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def sweep(self, now_s: float) -> None:
        """Close what has been idle for too long."""
        for address in list(self._idle):
            idle = self._idle[address]
            while idle and now_s - idle[0].idle_since_s > IDLE_S:
                idle[0].close()
            if not idle:
                del self._idle[address]

    def close(self) -> None:
        """Close everything."""
        for connection in list(self._open):
            connection.close()

    def check_integrity(self) -> None:
        """Assert that, with no request running, every open connection lies idle in the pool."""
        idle = {connection for waiting in self._idle.values() for connection in waiting}
        assert idle == self._open, f"{len(self._open - idle)} connections are neither idle nor in use"

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = self._make_ssl_context()
        return self._ssl_context
