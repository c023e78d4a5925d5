"""One HTTP/1.1 connection at asyncio-protocol level: keeps raw bytes with their arrival times, parses nothing else.

Reading what the bytes mean waits until the measurement is over (transcript.py), so that the client's own work does not
end up in the latencies.
"""

import asyncio
from array import array
from collections.abc import Callable

import httptools

from benchmarks.record import Failure, FailureKind

Clock = Callable[[], float]


class Exchange:
    """One request's answer as it came in; filled by the connection, final once `is_ended`."""

    __slots__ = (
        "end_s",
        "failure",
        "first_byte_s",
        "headers",
        "is_complete",
        "is_ended",
        "pieces",
        "sent_s",
        "status",
        "times",
    )

    def __init__(self) -> None:
        self.sent_s: float | None = None
        self.first_byte_s: float | None = None
        self.end_s = 0.0
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.times = array("d")
        """Arrival of each piece, seconds."""
        self.pieces: list[bytes] = []
        """Body bytes as they came, transfer coding removed."""
        self.is_complete = False
        """True when the body ended as its framing says."""
        self.is_ended = False
        self.failure: Failure | None = None

    @property
    def body(self) -> bytes:
        """All of it so far."""
        return b"".join(self.pieces)

    @property
    def num_bytes(self) -> int:
        """Bytes of body kept."""
        return sum(map(len, self.pieces))


class Connection(asyncio.Protocol):
    """One request at a time; `send` returns a future of the exchange, which never raises: failures are inside."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser = None
        self._exchange: Exchange | None = None
        self._waiter: asyncio.Future[Exchange] | None = None
        self._now = 0.0
        self.num_sent = 0
        self.is_reusable = True

    def send(self, request: bytes) -> "asyncio.Future[Exchange]":
        """Write the request's bytes; the future is done when its answer is complete, or cannot become so."""
        assert self._exchange is None
        assert self._transport is not None
        exchange = self._exchange = Exchange()
        waiter = self._waiter = self._loop.create_future()
        self.num_sent += 1
        self._parser = httptools.HttpResponseParser(self)
        exchange.sent_s = self._clock()
        self._transport.write(request)
        return waiter

    def abort(self, failure: Failure) -> None:
        """End the running exchange with `failure` and close the connection at once."""
        self._end(failure)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not derive from asyncio's

    def data_received(self, data: bytes) -> None:
        self._now = self._clock()
        exchange = self._exchange
        if exchange is None:  # an answer that nobody asked for, such as a 408 on an idle connection
            self.close()
            return
        if exchange.first_byte_s is None:
            exchange.first_byte_s = self._now
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(Failure(FailureKind.BAD_RESPONSE, f"not HTTP/1.1: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        exchange = self._exchange
        if exchange is None:
            return
        self._now = self._clock()
        if exchange.status is None:
            self._end(Failure(FailureKind.RESET, f"connection closed before the answer's headers{_reason(exc)}"))
        elif exc is None and self._ends_with_connection(exchange):
            exchange.is_complete = True
            self._end(None)
        else:
            self._end(Failure(FailureKind.TRUNCATED, f"connection closed within the answer{_reason(exc)}"))

    # httptools.HttpResponseParser

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._exchange is not None and status >= 200:
            self._exchange.status = status

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.times.append(self._now)
            exchange.pieces.append(body)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.status is None:  # 1xx: the answer itself follows
            return
        exchange.is_complete = True
        self.is_reusable = self.is_reusable and self._parser.should_keep_alive()
        self._end(None)

    def _end(self, failure: Failure | None) -> None:
        exchange, waiter = self._exchange, self._waiter
        self._exchange = self._waiter = None
        if failure is not None:
            self.close()
        if exchange is None or waiter is None:
            return
        exchange.end_s = self._now if failure is None else self._clock()
        exchange.failure = failure
        exchange.is_ended = True
        if not waiter.done():
            waiter.set_result(exchange)

    @staticmethod
    def _ends_with_connection(exchange: Exchange) -> bool:
        return b"content-length" not in exchange.headers and b"transfer-encoding" not in exchange.headers


def _reason(exc: Exception | None) -> str:
    return f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
