"""A made-up clock and a server on it, for what must come out exactly."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence

import orjson

from benchmarks import mock_wire
from benchmarks.driver import Driver, lanes_of
from benchmarks.http1 import Exchange
from benchmarks.record import Record
from benchmarks.traffic.request import Request

HEAD = mock_wire.STREAM_HEAD % b""
Serve = Callable[[Request, float], Sequence[float]]
"""Of a request sent at a time: when its chunks arrive."""


class Timeline:
    """Time goes on only from one call to the next."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now_s

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (due_s, next(self._numbers), call))

    def run(self) -> None:
        while self._due:
            due_s, _, call = heapq.heappop(self._due)
            self.now_s = max(self.now_s, due_s)
            call()


class VirtualServer:
    """Answers with one token per chunk at the times that `serve` says; of more than `limit` at once the rest wait."""

    def __init__(self, timeline: Timeline, serve: Serve, limit: int | None = None) -> None:
        self.bodies: list[bytes] = []
        self._timeline = timeline
        self._serve = serve
        self._free = limit
        self._waiting: list[tuple[Request, Callable[[Exchange], None]]] = []

    def send(self, request: Request, body: bytes, on_end: Callable[[Exchange], None]) -> None:
        self.bodies.append(body)
        if self._free == 0:
            self._waiting.append((request, on_end))
            return
        if self._free is not None:
            self._free -= 1
        self._answer(request, on_end)

    def _answer(self, request: Request, on_end: Callable[[Exchange], None]) -> None:
        exchange = answered(self._timeline.now_s, self._serve(request, self._timeline.now_s))
        self._timeline.at(exchange.end_s, lambda: self._ended(exchange, on_end))

    def _ended(self, exchange: Exchange, on_end: Callable[[Exchange], None]) -> None:
        if self._waiting:
            self._answer(*self._waiting.pop(0))
        elif self._free is not None:
            self._free += 1
        on_end(exchange)


def answered(sent_s: float, times_s: Sequence[float]) -> Exchange:
    """A whole streamed answer whose chunks arrive at these times."""
    exchange = Exchange()
    exchange.sent_s, exchange.end_s, exchange.status = sent_s, times_s[-1], 200
    exchange.headers[b"content-type"] = b"text/event-stream"
    exchange.is_complete = exchange.is_ended = True
    for number, at_s in enumerate(times_s):
        choice = {"delta": {"content": f" {number}"}, "finish_reason": None}
        data = (HEAD if number == 0 else b"") + _chunk({"choices": [choice]})
        if at_s == times_s[-1]:
            last = {"choices": [{"delta": {}, "finish_reason": "length"}]}
            data += _chunk(last) + mock_wire.http_chunk(mock_wire.event(b"[DONE]")) + mock_wire.LAST_CHUNK
        exchange.read_times.append(at_s)
        exchange.reads.append(data)
    return exchange


def _chunk(message: object) -> bytes:
    return mock_wire.http_chunk(mock_wire.event(orjson.dumps(message)))


def run(
    requests: Sequence[Request],
    serve: Serve,
    *,
    num_streams: int | None = None,
    limit: int | None = None,
    start_s: float = 0.0,
) -> tuple[list[Record], VirtualServer]:
    """Records of a closed loop of `num_streams`, or of an open one."""
    timeline, done = Timeline(), []
    timeline.now_s = start_s
    server = VirtualServer(timeline, serve, limit)
    driver = Driver(server, timeline, timeline.clock, lambda: done.append(timeline.now_s))
    lanes = lanes_of(requests)
    if num_streams is None:
        driver.run_open(lanes, start_s)
    else:
        driver.run_closed(lanes, num_streams, start_s)
    timeline.run()
    assert len(done) == 1
    assert max(driver.lags(), default=0.0) == 0.0
    return driver.records(), server
