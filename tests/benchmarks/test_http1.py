"""Wherever the network cuts an answer, its end is found with its last byte, and what it says is the same."""

import random

import pytest

from benchmarks import transcript
from benchmarks.http1 import Connection, Exchange
from benchmarks.record import FailureKind
from benchmarks.traffic.request import Request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENTS = (
    b'data: {"choices":[{"delta":{"content":"10"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":" a"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)


def chunked(*pieces: bytes, ending: bytes = b"0\r\n\r\n") -> bytes:
    return (
        HEAD
        + b"transfer-encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
        + ending
    )


CRLF_EVENTS = tuple(event.replace(b"\n", b"\r\n") for event in EVENTS)
WHOLE = b"".join(EVENTS)
ANSWERS = {
    "chunked": chunked(*EVENTS),
    "one chunk": chunked(WHOLE),
    "events that end in CR LF": chunked(*CRLF_EVENTS),
    "line ends in chunks of their own": chunked(*(part for event in CRLF_EVENTS for part in (event[:-4], b"\r\n\r\n"))),
    "trailers": chunked(*EVENTS, ending=b"0\r\nx-checksum: 5\r\n\r\n"),
    "chunk extensions": chunked(*EVENTS, ending=b"0;last\r\n\r\n"),
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n" + chunked(*EVENTS),
    "content-length": HEAD + b"content-length: %d\r\n\r\n" % len(WHOLE) + WHOLE,
}


class Transport:
    """Takes what is written and forgets it."""

    is_closed = False

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Feed:
    """A connection with one request under way; each read comes a second after the one before."""

    def __init__(self, leave_after: int | None = None) -> None:
        self.now_s = 0.0
        self.ended: list[Exchange] = []
        self.transport = Transport()
        self.connection = Connection(lambda: self.now_s)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.connection.begin(b"", self.ended.append, leave_after=leave_after)

    def read(self, *reads: bytes) -> None:
        for data in reads:
            self.now_s += 1
            self.connection.data_received(data)


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_cut_into_two_reads(name: str):
    answer = ANSWERS[name]
    for cut in range(1, len(answer)):
        feed = Feed()
        feed.read(answer[:cut])
        assert not feed.ended
        feed.read(answer[cut:])
        check(feed, 2)


@pytest.mark.parametrize("name", ANSWERS)
async def test_byte_by_byte_and_cut_at_random(name: str):
    answer, rng = ANSWERS[name], random.Random(name)
    for size in (1, 3, 7, 20):
        feed, start, num = Feed(), 0, 0
        while start < len(answer):
            end = start + rng.randint(1, size)
            feed.read(answer[start:end])
            start, num = end, num + 1
            assert bool(feed.ended) == (start >= len(answer))
        check(feed, num)


def check(feed: Feed, num_reads: int) -> None:
    (exchange,) = feed.ended
    record = transcript.read(exchange, Request(0, b"", 2, False), 0.0)
    assert (record.failure, record.text, record.finish_reason) == (None, "10 a", "stop")
    assert (record.end_s, record.first_byte_s) == (num_reads, 1.0)
    assert exchange.is_complete
    assert feed.connection.is_reusable
    assert not feed.transport.is_closed


async def test_pieces_have_the_time_of_the_read_that_brought_them():
    feed = Feed()
    feed.read(
        chunked(EVENTS[0], ending=b""), *(b"%x\r\n%b\r\n" % (len(each), each) for each in EVENTS[1:]), b"0\r\n\r\n"
    )
    (exchange,) = feed.ended
    assert list(exchange.times) == [1.0, 2.0, 3.0]
    assert exchange.pieces == list(EVENTS)


async def test_bytes_behind_the_end_belong_to_nobody_and_close_the_connection():
    feed = Feed()
    feed.read(chunked(*EVENTS) + b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 2\r\n\r\nno")
    (exchange,) = feed.ended
    assert (exchange.status, exchange.body) == (200, WHOLE)
    feed.read(b"more")
    assert feed.transport.is_closed


async def test_what_is_no_chunk_is_no_http():
    feed = Feed()
    feed.read(chunked(EVENTS[0], ending=b""), b"\r\nzz\r\n\r\n")
    (exchange,) = feed.ended
    assert exchange.failure is not None
    assert exchange.failure.kind is FailureKind.BAD_RESPONSE


@pytest.mark.parametrize("events", [EVENTS, CRLF_EVENTS])
async def test_a_client_leaves_after_so_many_events(events: tuple[bytes, ...]):
    feed = Feed(leave_after=2)
    feed.read(chunked(events[0], ending=b""))
    assert not feed.ended
    feed.read(b"%x\r\n%b\r\n" % (len(events[1]), events[1]))
    (exchange,) = feed.ended
    assert (exchange.is_cancelled, exchange.failure, exchange.end_s) == (True, None, 2.0)
    assert feed.transport.is_closed
    assert not feed.connection.is_reusable
    record = transcript.read(exchange, Request(0, b"", 9, True), 0.0)
    assert (record.is_cancelled, record.failure, record.text) == (True, None, "10 a")
