"""Response framing: byte-exact under any segmentation, and cuttable at any byte."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.dialects import Dialect
from gateway.data import framing
from gateway.data.framing import (
    MAX_HELD_BYTES,
    BodyRelay,
    ChunkDecoder,
    ChunkedBody,
    LengthBody,
    UntilCloseBody,
    event_end,
    parse_head,
)
from gateway.errors import BadAnswer, StreamFailed

ERROR = b'data: {"error":{}}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


def decode(data: bytes) -> bytes:
    """Decode a whole chunked body strictly: it must end, exactly at its end."""
    decoder = ChunkDecoder()
    body = decoder.feed(data)
    assert decoder.is_done
    assert not decoder.has_extra
    return body


def feed_in_steps(body: BodyRelay, wire: bytes, step: int) -> None:
    for start in range(0, len(wire), step):
        body.feed(wire[start : start + step])


def feed_all(body: BodyRelay, reads: list[bytes]) -> None:
    for data in reads:
        body.feed(data)


payloads = st.lists(st.binary(max_size=40).filter(bool), max_size=8)
texts = st.text(alphabet="ab\n\r{} é", max_size=12)
events = st.lists(texts.map(lambda text: b"data: " + text.replace("\n", " ").replace("\r", " ").encode()), max_size=8)
cuts = st.lists(st.integers(0, 1000), max_size=12)


@given(payloads, cuts, st.booleans(), st.booleans())
@settings(deadline=None)
def test_chunked_body_is_byte_exact(parts: list[bytes], at: list[int], is_sse: bool, is_client_chunked: bool) -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=is_sse, is_client_chunked=is_client_chunked)
    wire = b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    for piece in pieces(wire, at):
        body.feed(piece)
    assert body.is_done
    assert not body.has_extra
    assert body.num_bytes == len(wire)
    sent = b"".join(written)
    assert (decode(sent) if is_client_chunked else sent) == b"".join(parts)


@example([b"data: a"], [1, 2, 3, 4, 141, 341, 667], [], b"\r\n\r\n", 408)
@given(events, cuts, cuts, st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.integers(0, 2000))
@settings(max_examples=300, deadline=None)
def test_event_stream_can_end_in_an_error_at_any_byte(
    texts: list[bytes], chunk_cuts: list[int], read_cuts: list[int], end: bytes, death: int
) -> None:
    whole = [text + end for text in texts]
    wire = b"".join(chunk(part) for part in pieces(b"".join(whole), chunk_cuts))
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True)
    for piece in pieces(wire[: death % (len(wire) + 1)], read_cuts):
        body.feed(piece)
    assert body.fail(ERROR)
    received = decode(b"".join(written))
    assert received.endswith(ERROR)
    before = received.removesuffix(ERROR)
    assert before in [b"".join(whole[:num]) for num in range(len(whole) + 1)]


def test_usual_pieces_pass_verbatim_and_at_once() -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True)
    one, two, last = chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n") + chunk(b": ping\n\n"), b"0\r\n\r\n"
    for piece in (one, two, last):
        body.feed(piece)
    assert written == [one, two, last]
    assert written[0] is one  # not even a copy
    assert body.is_done


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_event_end_split_over_chunks_is_seen_as_one(end: bytes) -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True)
    for number in range(len(end)):
        assert not written
        body.feed(chunk((b"" if number else b"data: 1") + end[number : number + 1]))
    assert decode(b"".join(written) + b"0\r\n\r\n") == b"data: 1" + end


def test_whole_events_of_a_misaligned_stream_are_not_held() -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True)
    body.feed(chunk(b"data: 1\n\nda"))
    assert written == [chunk(b"data: 1\n\n")]
    body.feed(chunk(b"ta: 2\n\ndata: "))
    assert written[1:] == [chunk(b"data: 2\n\n")]


def test_oversized_event_is_passed_on_torn_and_cannot_carry_an_error() -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True)
    body.feed(chunk(b"data: " + b"x" * MAX_HELD_BYTES))
    assert written
    assert not body.fail(ERROR)
    body.feed(chunk(b"y\n\n"))
    assert body.fail(ERROR)
    assert decode(b"".join(written)) == b"data: " + b"x" * MAX_HELD_BYTES + b"y\n\n" + ERROR


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1\r\nab\r\n",
        b"1\na\n",
        b"fffffffff\r\n",
        b"\r\n",
    ],
)
def test_broken_chunks_are_refused(wire: bytes) -> None:
    for step in (1, len(wire)):
        body = ChunkedBody(lambda _: None, is_event_stream=False, is_client_chunked=True)
        with pytest.raises(BadAnswer):
            feed_in_steps(body, wire, step)


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\n"])
def test_bytes_after_the_end_are_not_passed_on(extra: bytes) -> None:
    bodies: list[tuple[BodyRelay, bytes, bytes]] = []
    written: list[bytes] = []
    bodies.append((LengthBody(written.append, 3), b"abc", b"abc"))
    chunked = ChunkedBody(written.append, is_event_stream=False, is_client_chunked=True)
    bodies.append((chunked, chunk(b"abc") + b"0\r\n\r\n", chunk(b"abc") + b"0\r\n\r\n"))
    for body, wire, expected in bodies:
        written.clear()
        body.feed(wire + extra)
        assert body.is_done
        assert body.has_extra
        assert b"".join(written) == expected


@pytest.mark.parametrize("size", [b"3", b"003", b"00000003", b"3 ", b"3;a=b", b"3\t"])
def test_size_lines_that_mean_three(size: bytes) -> None:
    for _ in range(2):  # the second time plain ones are known by heart
        written: list[bytes] = []
        body = ChunkedBody(written.append, is_event_stream=False, is_client_chunked=True)
        body.feed(size + b"\r\nabc\r\n0\r\n\r\n")
        assert body.is_done
        assert decode(b"".join(written)) == b"abc"


@pytest.mark.parametrize("size", [b"+3", b"-3", b"0x3", b" 3", b"3_", b"1_1", b"", b"000000003", b"\xd9\xa3"])
def test_what_python_would_take_for_a_number_is_no_size(size: bytes) -> None:
    body = ChunkedBody(lambda _: None, is_event_stream=False, is_client_chunked=True)
    with pytest.raises(BadAnswer):
        body.feed(size + b"\r\nabc\r\n0\r\n\r\n")


def test_sizes_known_by_heart_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "_KNOWN_SIZES", {})
    monkeypatch.setattr(framing, "_MAX_KNOWN_SIZES", 10)
    body = ChunkedBody(lambda _: None, is_event_stream=False, is_client_chunked=True)
    for size in range(1, 50):
        body.feed(chunk(b"x" * size))
    assert len(framing._KNOWN_SIZES) == 10
    assert body.num_bytes == sum(len(chunk(b"x" * size)) for size in range(1, 50))


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("wire", "is_answered"),
    [
        ([chunk(b"data: 1\n\n") + chunk(DONE)], True),
        ([chunk(b"data: 1\n\n"), chunk(DONE)[:9], chunk(DONE)[9:]], True),
        ([chunk(b"data: 1\n\n"), chunk(DONE[:-1]), chunk(DONE[-1:])], True),
        ([chunk(b"data: 1\n\n"), chunk(DONE[:-1])], False),
        ([chunk(DONE), chunk(b"data: 1\n\n")], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("is_client_chunked", [True, False])
def test_the_last_event_is_recognised_once_the_client_has_it(
    wire: list[bytes], is_answered: bool, is_client_chunked: bool
) -> None:
    body = ChunkedBody(lambda _: None, is_event_stream=True, is_client_chunked=is_client_chunked)
    for data in wire:
        body.feed(data)
    assert body.is_answered(Dialect.OPENAI) is is_answered
    assert not body.is_answered(Dialect.MESSAGES)


@given(events, cuts, cuts, st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_an_error_event_ends_the_stream_before_itself(
    texts: list[bytes],
    chunk_cuts: list[int],
    read_cuts: list[int],
    end: bytes,
    is_named: bool,
    is_client_chunked: bool,
    is_until_close: bool,
) -> None:
    """However it is cut into chunks and reads, provided that it begins a chunk, which is how engines send it."""
    said = (b'event: error\ndata: {"type":"error"}' if is_named else b'data: {"error": {"code": 500}}') + end
    before = b"".join(text + end for text in texts)
    parts = [*pieces(before, chunk_cuts), said, b"data: [DONE]" + end]
    written: list[bytes] = []
    kind = UntilCloseBody if is_until_close else ChunkedBody
    dialect = Dialect.MESSAGES if is_named else Dialect.OPENAI
    body = kind(written.append, is_event_stream=True, is_client_chunked=is_client_chunked, dialect=dialect)
    wire = b"".join(parts) if is_until_close else b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    with pytest.raises(StreamFailed) as caught:
        feed_all(body, pieces(wire, read_cuts))
    assert caught.value.event == said
    assert body.fail(ERROR)
    received = b"".join(written)
    assert (decode(received) if is_client_chunked else received) == before + ERROR


@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.MESSAGES])
def test_an_error_event_of_another_api_is_an_event(dialect: Dialect) -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True, dialect=dialect)
    body.feed(chunk(ERROR))
    assert written == [chunk(ERROR)]


def test_an_error_event_without_its_end_is_one_when_the_connection_closes() -> None:
    body = UntilCloseBody(lambda _: None, is_event_stream=True, is_client_chunked=True)
    body.feed(b'data: 1\n\ndata: {"error": 1}\n')
    with pytest.raises(StreamFailed) as caught:
        body.end()
    assert caught.value.event == b'data: {"error": 1}\n'


def test_extensions_and_trailers_are_dropped() -> None:
    written: list[bytes] = []
    body = ChunkedBody(written.append, is_event_stream=False, is_client_chunked=True)
    body.feed(b"3;a=b\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n")
    assert body.is_done
    assert b"".join(written) == chunk(b"abc") + b"0\r\n\r\n"


def test_until_close_body() -> None:
    written: list[bytes] = []
    body = UntilCloseBody(written.append, is_event_stream=True, is_client_chunked=True)
    body.feed(b"data: 1\n\nda")
    assert decode(b"".join(written) + b"0\r\n\r\n") == b"data: 1\n\n"
    body.end()
    assert body.is_done
    assert decode(b"".join(written)) == b"data: 1\n\nda"


@given(st.binary(max_size=60), cuts)
@settings(deadline=None)
def test_length_body_is_byte_exact(data: bytes, at: list[int]) -> None:
    written: list[bytes] = []
    body = LengthBody(written.append, len(data))
    for piece in pieces(data, at):
        body.feed(piece)
    assert body.is_done
    assert b"".join(written) == data
    assert not body.fail(ERROR)


def test_event_end() -> None:
    assert event_end(bytearray(b"a\n\nb"), 0) == 3
    assert event_end(bytearray(b"a\r\n\r\nb"), 0) == 5
    assert event_end(bytearray(b"a\n\nb\r\n\r\n"), 0) == 8
    assert event_end(bytearray(b"a\nb"), 0) == 0


def test_head_keeps_end_to_end_headers_only() -> None:
    head = parse_head(
        b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        b"X-Request-Id: theirs\r\nX-Forgegate-Engine: forged\r\nRetry-After: 3"
    )
    assert head.lines == b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nRetry-After: 3\r\n"
    assert head.is_event_stream
    assert head.is_chunked
    assert not head.can_reuse


def test_compressed_events_are_opaque() -> None:
    assert not parse_head(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip"
    ).is_event_stream


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nspace : x",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded",
        b"HTTP/1.1 200 OK\r\na: b\nc: d",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip",
    ],
)
def test_bad_heads_are_refused(head: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_head(head)


def test_seeded_soak() -> None:
    dice = random.Random(11)
    body = b"".join(b"data: %d\n\n" % dice.randrange(10**9) for _ in range(3000))
    wire, pos = b"", 0
    while pos < len(body):
        size = dice.randrange(1, 60)
        wire += chunk(body[pos : pos + size])
        pos += size
    wire += b"0\r\n\r\n"
    written: list[bytes] = []
    relay = ChunkedBody(written.append, is_event_stream=True, is_client_chunked=True)
    pos = 0
    while pos < len(wire):
        size = dice.randrange(1, 200)
        relay.feed(wire[pos : pos + size])
        pos += size
    assert decode(b"".join(written)) == body
