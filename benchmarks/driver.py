"""Sends a request list: lanes of requests that follow each other, each started when it is due or when a stream is free.

It knows neither sockets nor the event loop: what sends, what calls back later and what time it is are given to it, so that
it runs against a server that answers on a made-up clock just as well.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol

from benchmarks import transcript
from benchmarks.http1 import Clock, Exchange
from benchmarks.pacer import Timer
from benchmarks.record import Record
from benchmarks.traffic.request import Request
from benchmarks.traffic.sessions import History

RAW_BYTES_KEPT = 256 << 20
"""Raw answers kept before they are read. A run above this reads them as it goes, which costs client time."""
BATCH = 64
"""Requests sent in one go when several are overdue; then the loop looks after its sockets again."""

OnLaneEnd = Callable[[float], None]
"""Takes the time at which the lane's last answer ended."""


class Wire(Protocol):
    """Where requests go."""

    def send(self, request: Request, body: bytes, on_end: Callable[[Exchange], None]) -> None:
        """Send it; `on_end` hears of the ended exchange, never from within this call."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request and what came back."""

    request: Request
    intended_s: float
    exchange: Exchange


class Lane:
    """Requests of which each follows the answer to the one before: a session, or a single request."""

    __slots__ = ("_history", "_next", "requests")

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self._history: History | None = History() if len(requests) > 1 else None
        self._next = 0

    @property
    def head(self) -> Request | None:
        """The request to send next; None at the end."""
        return self.requests[self._next] if self._next < len(self.requests) else None

    def body(self, request: Request) -> bytes:
        """What is sent for the head."""
        return request.body if self._history is None else self._history.body_of(request.body)

    def advance(self, exchange: Exchange) -> None:
        """The head was answered."""
        if self._history is not None and self._next + 1 < len(self.requests):
            self._history.add(self.requests[self._next].body, transcript.answer_of(exchange))
        self._next += 1


def lanes_of(requests: Iterable[Request]) -> list[Lane]:
    """A request with turn 0 begins a lane, those of later turns continue the one before them in the list."""
    grouped: list[list[Request]] = []
    for request in requests:
        if request.turn and grouped:
            grouped[-1].append(request)
        else:
            grouped.append([request])
    return [Lane(group) for group in grouped]


class Driver:
    """Runs one list; `on_done` hears when the last answer has ended."""

    def __init__(self, wire: Wire, timer: Timer, clock: Clock, on_done: Callable[[], None]) -> None:
        self._wire = wire
        self._timer = timer
        self._clock = clock
        self._on_done = on_done
        self._kept: deque[Sent] = deque()
        self._num_kept_bytes = 0
        self._records: list[Record] = []
        self._lags: list[float] = []
        self._num_running = 0
        self._start_s = 0.0

    def run_open(self, lanes: Sequence[Lane], start_s: float) -> None:
        """Each lane starts `due_s` of its first request after `start_s`, whatever the server does."""
        self._start_s = start_s
        self._num_running = len(lanes)
        if lanes:
            self._feed(deque(sorted(lanes, key=_due_s)))
        else:
            self._on_done()

    def run_closed(self, lanes: Sequence[Lane], num_streams: int, start_s: float) -> None:
        """`num_streams` users at work, each taking the next lane when its last one has ended, from `start_s` on."""
        supply = iter(lanes)
        self._num_running = num_streams = min(num_streams, len(lanes))
        if not lanes:
            self._on_done()
        for _ in range(num_streams):
            self._timer.at(start_s, partial(self._take_lane, supply, True, start_s))

    def records(self) -> list[Record]:
        """In the order of the list; call it when the run is done."""
        while self._kept:
            self._read_oldest()
        return sorted(self._records, key=lambda record: record.index)

    def lags(self) -> list[float]:
        """Seconds from when each request was due until the driver came to it, in the order of sending. What passes from
        then until it is sent is waiting for a connection.
        """
        return self._lags

    def _feed(self, lanes: deque[Lane]) -> None:
        """Start what is due, and come again for the rest."""
        for _ in range(BATCH):
            if not lanes or self._start_s + _due_s(lanes[0]) > self._clock():
                break
            lane = lanes.popleft()
            self._send(lane, self._start_s + _due_s(lane), self._lane_ended)
        if lanes:
            self._timer.at(self._start_s + _due_s(lanes[0]), partial(self._feed, lanes))

    def _lane_ended(self, _at_s: float) -> None:
        self._num_running -= 1
        if not self._num_running:
            self._on_done()

    def _take_lane(self, supply: Iterator[Lane], is_first: bool, free_s: float) -> None:
        """A user of the closed loop is free; the very first request comes without a pause."""
        lane = next(supply, None)
        if lane is None:
            self._lane_ended(free_s)
            return
        start = self._send if is_first else self._follow
        start(lane, free_s, partial(self._take_lane, supply, False))

    def _follow(self, lane: Lane, free_s: float, on_lane_end: OnLaneEnd) -> None:
        """Send the lane's head after its pause."""
        request = lane.head
        assert request is not None
        if request.pause_s:
            due_s = free_s + request.pause_s
            self._timer.at(due_s, partial(self._send, lane, due_s, on_lane_end))
        else:
            self._send(lane, free_s, on_lane_end)

    def _send(self, lane: Lane, intended_s: float, on_lane_end: OnLaneEnd) -> None:
        request = lane.head
        assert request is not None
        self._lags.append(self._clock() - intended_s)
        self._wire.send(request, lane.body(request), partial(self._ended, lane, intended_s, on_lane_end))

    def _ended(self, lane: Lane, intended_s: float, on_lane_end: OnLaneEnd, exchange: Exchange) -> None:
        request = lane.head
        assert request is not None
        lane.advance(exchange)
        self._keep(Sent(request, intended_s, exchange))
        if lane.head is None:
            on_lane_end(exchange.end_s)
        else:
            self._follow(lane, exchange.end_s, on_lane_end)

    def _keep(self, sent: Sent) -> None:
        self._kept.append(sent)
        self._num_kept_bytes += sent.exchange.num_bytes
        while self._num_kept_bytes > RAW_BYTES_KEPT:  # one or two at a time: all at once would stall every stream
            self._read_oldest()

    def _read_oldest(self) -> None:
        sent = self._kept.popleft()
        self._num_kept_bytes -= sent.exchange.num_bytes
        self._records.append(transcript.read(sent.exchange, sent.request, sent.intended_s))


def _due_s(lane: Lane) -> float:
    return lane.requests[0].due_s or 0.0


def split(lanes: Sequence[Lane], num: int) -> list[list[Request]]:
    """The lanes dealt out to `num` processes, one after the other, as request lists."""
    return [list(chain.from_iterable(lane.requests for lane in lanes[part::num])) for part in range(num)]
