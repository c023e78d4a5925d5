import random

import pytest

from benchmarks.sse import Event, EventParser


def parse(*pieces: bytes) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


STREAM = (
    b': comment\n\ndata: {"a": 1}\n\n'
    b"event: error\r\ndata: first\r\ndata: second\r\n\r\n"
    b"id: 7\ndata:no space\rdata:  two spaces\r\r"
    b"data: \xed\x95\x9c\xea\xb8\x80 \xf0\x9f\x99\x82\n\n"
    b"data\n\ndata: [DONE]\n\n"
)
EVENTS = [
    Event("message", b'{"a": 1}'),
    Event("error", b"first\nsecond"),
    Event("message", b"no space\n two spaces"),
    Event("message", "한글 🙂".encode()),
    Event("message", b""),
    Event("message", b"[DONE]"),
]


def test_whole_stream_at_once():
    assert parse(STREAM) == EVENTS


def test_byte_by_byte():
    assert parse(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


@pytest.mark.parametrize("seed", range(200))
def test_random_segmentation(seed: int):
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(STREAM) + 1) for _ in range(rng.randrange(1, 30)))
    pieces = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert parse(*pieces) == EVENTS


def test_carriage_return_ends_a_line_without_waiting_for_what_follows():
    assert parse(b"data: a\r\r") == [Event("message", b"a")]


def test_line_feed_after_carriage_return_in_the_next_piece_is_one_line_end():
    assert parse(b"data: a\r", b"\n", b"data: b\r", b"\n\r", b"\n") == [Event("message", b"a\nb")]


def test_byte_order_mark_is_dropped_once():
    assert parse(b"\xef\xbb\xbfdata: a\n\n") == [Event("message", b"a")]
    assert parse(b"\xef\xbb", b"\xbfdata: a\n\n") == [Event("message", b"a")]


def test_a_cut_event_is_noticed_and_not_dispatched():
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b\n") == [Event("message", b"a")]
    assert parser.is_inside_event
    assert parser.feed(b"\n") == [Event("message", b"b")]
    assert not parser.is_inside_event
