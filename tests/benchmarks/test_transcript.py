import orjson
import pytest

from benchmarks import transcript
from benchmarks.http1 import Exchange
from benchmarks.record import FailureKind
from benchmarks.traffic.request import Request
from tests.benchmarks.virtual import answered

REQUEST = Request(3, b"", 9, False, adapter="voice", session=4, turn=1)


def with_deltas(*deltas: dict[str, object], **headers: str) -> Exchange:
    """A whole stream with these deltas."""
    exchange = answered(1.0, [2.0])
    head, _, _ = exchange.reads[0].partition(b"\r\n\r\n")
    messages = [{"choices": [{"delta": delta}]} for delta in deltas]
    messages.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = b"".join(b"data: %b\n\n" % orjson.dumps(message) for message in messages) + b"data: [DONE]\n\n"
    exchange.reads[0] = head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    exchange.headers.update({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    return exchange


def test_reasoning_and_tool_arguments_are_generated_text_but_no_answer():
    exchange = with_deltas(
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm, "},
        {"reasoning": "well"},
        {"content": "yes"},
        {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]},
    )
    record = transcript.read(exchange, REQUEST, 0.5)
    assert record.text == 'hm, wellyes{"a":1}'
    assert record.reasoning_chars == 8
    assert len(record.chunk_times_s) == 4
    assert transcript.answer_of(exchange) == "yes"


def test_what_the_request_is_part_of_comes_along():
    record = transcript.read(with_deltas({"content": "a"}), REQUEST, 0.5)
    assert (record.index, record.adapter, record.session, record.turn) == (3, "voice", 4, 1)
    assert (record.is_cancelled, record.queue_s) == (False, None)


@pytest.mark.parametrize(("said", "queue_s"), [("125", 0.125), ("soon", None)])
def test_a_forgegate_says_how_long_a_request_waited(said: str, queue_s: float | None):
    assert transcript.read(with_deltas({"content": "a"}, x_forgegate_queue_ms=said), REQUEST, 0).queue_s == queue_s


def embeddings(body: bytes, content_type: bytes = b"application/json") -> Exchange:
    exchange = answered(1.0, [2.0])
    exchange.headers[b"content-type"] = content_type
    exchange.reads[0] = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    return exchange


@pytest.mark.parametrize(
    "exchange",
    [
        embeddings(b"{"),
        embeddings(b"[]"),
        embeddings(b'{"data": []}'),
        embeddings(b'{"data": [{"embedding": []}]}'),
        embeddings(b'{"data": [{"embedding": [1]}]}', b"text/html"),
    ],
)
def test_what_are_no_embeddings(exchange: Exchange):
    record = transcript.read(exchange, Request(0, b"", 0, False, transcript.EMBEDDINGS_PATH), 0)
    assert record.failure is not None
    assert record.failure.kind is FailureKind.BAD_RESPONSE
