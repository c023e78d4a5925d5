"""One HTTP/1.1 connection at asyncio-protocol level: keeps what it reads as it came, with the times, and looks only for the end.

What the bytes mean is read when the measurement is over (transcript.py), and so is the transfer coding, so that the
client's own work does not end up in the latencies.
"""

import asyncio
from array import array
from collections.abc import Callable

import httptools

from benchmarks.record import Failure, FailureKind

Clock = Callable[[], float]

_EMPTY_LINE = b"\r\n\r\n"
_LINE_ENDS = b"\r\n"


class Exchange:
    """One request's answer as it came in; filled by the connection, final once `is_ended`."""

    __slots__ = (
        "_body",
        "end_s",
        "failure",
        "headers",
        "is_cancelled",
        "is_complete",
        "is_ended",
        "read_times",
        "reads",
        "sent_s",
        "status",
    )

    def __init__(self) -> None:
        self.sent_s: float | None = None
        self.end_s = 0.0
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.read_times = array("d")
        """Arrival of each read, seconds."""
        self.reads: list[bytes] = []
        """Everything as it came, heads and transfer coding included."""
        self.is_complete = False
        """True when the body ended as its framing says."""
        self.is_cancelled = False
        """True when the client left before the end, as it was told to."""
        self.is_ended = False
        self.failure: Failure | None = None
        self._body: _Body | None = None

    @property
    def first_byte_s(self) -> float | None:
        """Arrival of the first read."""
        return self.read_times[0] if self.read_times else None

    @property
    def num_bytes(self) -> int:
        """Bytes kept."""
        return sum(map(len, self.reads))

    @property
    def times(self) -> "array[float]":
        """Arrival of each piece, seconds."""
        return self._decoded().times

    @property
    def pieces(self) -> list[bytes]:
        """Body bytes as they came, transfer coding removed. Ask when the exchange has ended."""
        return self._decoded().pieces

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)

    def _decoded(self) -> "_Body":
        if self._body is None:
            self._body = _Body(self.read_times, self.reads)
        return self._body


class Connection(asyncio.Protocol):
    """One request at a time. Failures are inside of the exchange, nothing is raised."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser = None
        self._exchange: Exchange | None = None
        self._on_end: Callable[[Exchange], None] | None = None
        self._now = 0.0
        self._num_parsed = 0
        self._is_chunked = False
        self._events_left: int | None = None
        self.num_sent = 0
        self.is_reusable = True

    def begin(self, request: bytes, on_end: Callable[[Exchange], None], *, leave_after: int | None = None) -> None:
        """Write the request's bytes; `on_end` hears when the answer is complete, or cannot become so. With `leave_after`
        the client leaves when it has seen so many events of the stream.
        """
        assert self._exchange is None
        assert self._transport is not None
        exchange = self._exchange = Exchange()
        self._on_end = on_end
        self.num_sent += 1
        self._parser = httptools.HttpResponseParser(self)
        self._num_parsed, self._is_chunked, self._events_left = 0, False, leave_after
        exchange.sent_s = self._clock()
        self._transport.write(request)

    def send(self, request: bytes) -> "asyncio.Future[Exchange]":
        """As `begin`; the future is done at the end."""
        waiter: asyncio.Future[Exchange] = self._loop.create_future()
        self.begin(request, lambda exchange: None if waiter.done() else waiter.set_result(exchange))
        return waiter

    def abort(self, failure: Failure) -> None:
        """End the running exchange with `failure` and close the connection at once."""
        self._end(failure)

    def leave(self) -> None:
        """The client goes away in the middle of the running exchange, which is no failure."""
        if self._exchange is not None:
            self._exchange.is_cancelled = True
            self._now = self._clock()
            self.close()
            self._end(None)

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
        exchange.read_times.append(self._now)
        exchange.reads.append(data)
        # A chunked message ends with an empty line. A read that neither holds one nor may hold the rest of one cannot
        # end it, and is left for later; in an event stream that is every read but the first and the last.
        if not self._is_chunked or _EMPTY_LINE in data or data[0] in _LINE_ENDS:
            self._parse(exchange)
        if self._events_left is not None and self._exchange is exchange:
            self._count_events(data if len(exchange.reads) > 1 else data.partition(_EMPTY_LINE)[2])

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

    # httptools.HttpResponseParser; without on_body, so that it passes over chunks without a call for each

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._exchange is not None and status >= 200:
            self._exchange.status = status
            self._is_chunked = b"chunked" in self._exchange.headers.get(b"transfer-encoding", b"").lower()

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.status is None:  # 1xx: the answer itself follows
            return
        exchange.is_complete = True
        self.is_reusable = self.is_reusable and self._parser.should_keep_alive()
        self._end(None)

    def _parse(self, exchange: Exchange) -> None:
        fresh = exchange.reads[self._num_parsed :]
        self._num_parsed += len(fresh)
        try:
            self._parser.feed_data(fresh[0] if len(fresh) == 1 else b"".join(fresh))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(Failure(FailureKind.BAD_RESPONSE, f"not HTTP/1.1: {exc}"))

    def _count_events(self, data: bytes) -> None:
        assert self._events_left is not None
        self._events_left -= data.count(b"\n\n") + data.count(_EMPTY_LINE)
        if self._events_left <= 0:
            self.leave()

    def _end(self, failure: Failure | None) -> None:
        exchange, on_end = self._exchange, self._on_end
        self._exchange = self._on_end = None
        if failure is not None:
            self.close()
        if exchange is None or on_end is None:
            return
        exchange.end_s = self._now if failure is None else self._clock()
        exchange.failure = failure
        exchange.is_ended = True
        on_end(exchange)

    @staticmethod
    def _ends_with_connection(exchange: Exchange) -> bool:
        return b"content-length" not in exchange.headers and b"transfer-encoding" not in exchange.headers


class _Body:
    """Takes the transfer coding away: each piece with the arrival of the read that brought it."""

    def __init__(self, read_times: "array[float]", reads: list[bytes]) -> None:
        self.times = array("d")
        self.pieces: list[bytes] = []
        self._now = 0.0
        self._is_over = False
        parser = self._parser = httptools.HttpResponseParser(self)
        try:
            for self._now, data in zip(read_times, reads, strict=True):
                parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            pass  # what is no HTTP has no body; the exchange has the failure
        del self._parser  # it holds this object in turn

    def on_body(self, body: bytes) -> None:
        if not self._is_over:
            self.times.append(self._now)
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        self._is_over = self._parser.get_status_code() >= 200


def _reason(exc: Exception | None) -> str:
    return f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
