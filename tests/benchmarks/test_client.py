import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from benchmarks import transcript
from benchmarks.client import Client, Target, TargetError
from benchmarks.mock_server import MockEngine
from benchmarks.record import FailureKind, Record
from benchmarks.workload import Request

Ask = Callable[..., Awaitable[Record]]

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


async def answered_with(*parts: bytes, timeout_s: float = 5.0) -> Record:
    """What the client makes of a server that sends these bytes, one write each, and then closes."""

    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.002)
        writer.close()
        with contextlib.suppress(OSError):  # a client that has seen enough closes first
            await writer.wait_closed()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        request = Request(0, b"{}", 4, False)
        exchange = await Client(Target.from_url(url), timeout_s=timeout_s).post("/v1/chat/completions", request.body)
        await served.wait()
    return transcript.read(exchange, request, 0.0)


def kind(record: Record) -> FailureKind | None:
    return record.failure.kind if record.failure else None


async def test_a_whole_answer(ask: Ask):
    record = await ask(max_tokens=7)
    assert record.failure is None
    assert (record.completion_tokens, record.prompt_tokens, record.finish_reason) == (7, 2, "length")
    assert len(record.chunk_times_s) == len(record.chunk_chars) == 7
    assert sum(record.chunk_chars) == len(record.text)
    assert record.sent_s is not None
    assert record.first_byte_s is not None
    assert record.intended_s <= record.sent_s <= record.first_byte_s <= record.chunk_times_s[0]
    assert record.chunk_times_s[-1] <= record.end_s


async def test_connections_are_reused_or_not(engine: MockEngine):
    for keep_alive, expected in ((True, 1), (False, 3)):
        before = engine.stats.num_connections
        client = Client(Target.from_url(engine.url), keep_alive=keep_alive)
        for _ in range(3):
            assert (await client.get("/v1/models")).status == 200
        client.close()
        assert engine.stats.num_connections - before == expected == client.num_connects


async def test_a_connection_that_the_server_closed_while_idle_is_replaced(engine: MockEngine, client: Client, ask: Ask):
    await ask()
    for connection in list(engine.connections):
        connection.close()
    assert (await ask()).is_ok
    assert client.num_connects == 2


async def test_http_status(ask: Ask):
    record = await ask(mock={"error_rate": 1, "error_status": 503})
    assert kind(record) is FailureKind.HTTP_STATUS
    assert record.failure is not None
    assert "503" in record.failure.detail
    assert "told to fail" in record.failure.detail


async def test_error_event_in_a_started_stream(ask: Ask):
    record = await ask(mock={"error_event_after": 3})
    assert kind(record) is FailureKind.ERROR_EVENT
    assert len(record.chunk_times_s) == 3


@pytest.mark.parametrize("after", [0, 3])
async def test_disconnect(ask: Ask, after: int):
    record = await ask(mock={"disconnect_rate": 1, "disconnect_after": after})
    assert kind(record) is (FailureKind.TRUNCATED if after else FailureKind.RESET)
    assert len(record.chunk_times_s) == after


async def test_done_without_finish_reason_is_no_success(ask: Ask):
    record = await ask(mock={"truncate_after": 3})
    assert kind(record) is FailureKind.TRUNCATED
    assert record.failure is not None
    assert "finish_reason" in record.failure.detail


@pytest.mark.parametrize("after", [0, 2])
async def test_a_hang_ends_in_a_timeout_and_the_server_sees_the_client_leave(engine: MockEngine, ask: Ask, after: int):
    client = Client(Target.from_url(engine.url), timeout_s=0.1)
    body = b'{"model":"mock","messages":[{"content":"a"}],"stream":true,"mock":{"hang_rate":1,"hang_after":%d}}' % after
    record = transcript.read(await client.post("/v1/chat/completions", body), Request(0, body, 9, False), 0.0)
    assert kind(record) is FailureKind.TIMEOUT
    assert len(record.chunk_times_s) == after
    await asyncio.sleep(0.1)
    assert (engine.stats.num_disconnects_seen, engine.stats.num_running) == (1, 0)


async def test_nobody_there():
    async with MockEngine() as engine:
        url = engine.url
    exchange = await Client(Target.from_url(url)).get("/v1/models")
    assert exchange.failure is not None
    assert exchange.failure.kind is FailureKind.CONNECT
    assert "refused" in exchange.failure.detail.lower()


async def test_a_stream_that_ends_with_its_connection_is_whole():
    record = await answered_with(HEAD + b"\r\n", CHUNK, CHUNK[:20], CHUNK[20:], LAST, DONE)
    assert record.failure is None
    assert record.num_output_tokens == 2


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((HEAD + b"\r\n", CHUNK, LAST), FailureKind.TRUNCATED),
        ((HEAD + b"\r\n", CHUNK, LAST, DONE, b"data: x"), FailureKind.TRUNCATED),
        ((HEAD + b"content-length: 9999\r\n\r\n", CHUNK, LAST, DONE), FailureKind.TRUNCATED),
        ((HEAD + b"transfer-encoding: chunked\r\n\r\n", b"5\r\nda"), FailureKind.TRUNCATED),
        ((HEAD + b"\r\n", b"data: {\n\n"), FailureKind.BAD_RESPONSE),
        ((HEAD + b"\r\n", b'data: {"choices": 7}\n\n'), FailureKind.BAD_RESPONSE),
        ((b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n", b"<html>"), FailureKind.BAD_RESPONSE),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), FailureKind.BAD_RESPONSE),
        ((HEAD + b"\r\n", CHUNK, b'data: {"error": {"message": "gone"}}\n\n', LAST, DONE), FailureKind.ERROR_EVENT),
        ((b"",), FailureKind.RESET),
    ],
)
async def test_what_is_no_whole_answer(parts: tuple[bytes, ...], expected: FailureKind):
    assert kind(await answered_with(*parts)) is expected


async def test_an_interim_response_is_passed_over():
    record = await answered_with(b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"\r\n", CHUNK, LAST, DONE)
    assert record.failure is None


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, ""),
        ("http://127.0.0.1:8080/v1/", "127.0.0.1", 8080, ""),
        ("localhost:9000", "localhost", 9000, ""),
        ("https://example.org/api/v1", "example.org", 443, "/api"),
        ("http://[::1]:80", "::1", 80, ""),
    ],
)
def test_target(url: str, host: str, port: int, prefix: str):
    target = Target.from_url(url, "key")
    assert (target.host, target.port, target.prefix) == (host, port, prefix)
    assert b"authorization: Bearer key\r\n" in target.head("GET", "/v1/models")


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_bad_target(url: str):
    with pytest.raises(TargetError):
        Target.from_url(url)
