"""vLLM's own failures through the data path: a dead engine core, a server that ends, and what the client sees of it."""

from __future__ import annotations

import httpx
import orjson
import pytest

from gateway.data.complaints import ErrorEvent, is_death, is_denial
from gateway.snapshot import EngineTrouble
from tests.gateway.data.asking import V1
from tests.gateway.data.rig import Call, Rig, StubEngine, echo, event
from tests.gateway.data.vllm_wire import (
    CHAT_EVENTS,
    DEATH,
    DEATH_EVENT,
    DONE_EVENT,
    MESSAGES_DEATH,
    MESSAGES_DEATH_EVENT,
    MESSAGES_EVENTS,
    MESSAGES_UNKNOWN_MODEL,
    RESPONSES_EVENTS,
    SHUTDOWN,
    UNKNOWN_MODEL,
    answer,
    stream,
)

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PARSE_EVENT = b'data: {"error": {"message": "unexpected tokens remaining", "type": "BadRequestError", "param": null, "code": 400}}\n\n'
BROKEN_EVENT = b'data: {"error": {"message": "Internal server error", "type": "InternalServerError", "param": null, "code": 500}}\n\n'


@pytest.fixture
def rig(rig: Rig) -> Rig:
    rig.capabilities = ("chat", "completions", "tokenize", "responses", "messages", "embeddings")
    return rig


async def ask(rig: Rig, path: str, **fields: object) -> httpx.Response:
    async with rig.client() as client:
        return await client.post(path, json={"model": "m", **fields})


def last_event(content: bytes) -> dict[str, object]:
    *_, last, nothing = content.split(b"\n\n")
    assert nothing == b""
    found = orjson.loads(last.partition(b"data: ")[2])
    assert isinstance(found, dict)
    return found


# Before the first byte: another replica answers.


@pytest.mark.parametrize(
    ("path", "is_streamed", "script"),
    [
        (CHAT, False, answer(500, DEATH)),
        (CHAT, False, answer(500, SHUTDOWN)),
        (RESPONSES, False, answer(500, DEATH)),
        (MESSAGES, False, answer(500, MESSAGES_DEATH)),
        ("/v1/embeddings", False, answer(500, DEATH)),
        ("/tokenize", False, answer(500, DEATH)),
        (CHAT, True, answer(500, DEATH)),
        (CHAT, True, stream(DEATH_EVENT, DONE_EVENT)),
        ("/v1/completions", True, stream(DEATH_EVENT, DONE_EVENT)),
        (MESSAGES, True, stream(MESSAGES_DEATH_EVENT)),
        (RESPONSES, True, stream(is_cut=True)),
    ],
)
async def test_a_death_before_the_first_byte_is_another_replicas_to_answer(
    rig: Rig, path: str, is_streamed: bool, script: object
) -> None:
    engines = StubEngine(script), StubEngine(echo())  # type: ignore[arg-type]
    await rig.start(*engines)
    for _ in range(6):
        response = await ask(rig, path, stream=is_streamed)
        assert response.status_code == 200
        assert response.headers["x-forgegate-engine"] == "m-1"
        assert "got" in response.json()
    assert {trouble.engine_id for trouble in rig.troubles} == {"m-0"}
    assert {line.retries for line in rig.lines} == {0, 1}
    assert {(line.status, line.error, line.engine) for line in rig.lines} == {(200, "", "m-1")}
    async with rig.client() as client:
        assert 'forgegate_retries_total{engine="m-0"}' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("path", "script"),
    [
        (CHAT, answer(500, DEATH)),
        (CHAT, stream(DEATH_EVENT, DONE_EVENT)),
        (MESSAGES, stream(MESSAGES_DEATH_EVENT)),
    ],
)
async def test_a_death_everywhere_is_said_in_our_words_after_one_retry(rig: Rig, path: str, script: object) -> None:
    engines = StubEngine(script), StubEngine(script), StubEngine(script)  # type: ignore[arg-type]
    await rig.start(*engines)
    response = await ask(rig, path)
    assert response.status_code == 502
    error = response.json()["error"]
    assert error["code"] == "engine_died"
    assert error["message"].endswith("died before its answer was complete")
    assert sum(len(engine.calls) for engine in engines) == 2
    assert (rig.lines[-1].status, rig.lines[-1].error, rig.lines[-1].retries) == (502, "engine_died", 1)
    assert {trouble.reason for trouble in rig.troubles} == {"engine_died"}


async def test_another_500_is_passed_on_as_it_is(rig: Rig) -> None:
    body = b'{"error":{"message":"CUDA error: an illegal memory access","type":"InternalServerError","param":null,"code":500}}'
    engines = StubEngine(answer(500, body)), StubEngine(answer(500, body))
    await rig.start(*engines)
    response = await ask(rig, CHAT)
    assert (response.status_code, response.content) == (500, body)
    assert response.headers["server"] == "uvicorn"
    assert response.headers["x-forgegate-engine"] in ("m-0", "m-1")
    assert sum(len(engine.calls) for engine in engines) == 1
    assert (rig.lines[-1].status, rig.lines[-1].error, rig.lines[-1].bytes) == (500, "", len(body))


async def test_a_connection_that_a_500_came_on_goes_on(rig: Rig) -> None:
    engine = StubEngine(answer(500, b"{}"), echo())
    await rig.start(engine)
    assert (await ask(rig, CHAT)).status_code == 500
    assert (await ask(rig, CHAT)).status_code == 200
    assert engine.num_connections == 1


# In the middle of a stream: one terminal event, and a failure in the books.


@pytest.mark.parametrize(
    ("path", "script", "shown"),
    [
        (CHAT, stream(*CHAT_EVENTS, DEATH_EVENT, DONE_EVENT), CHAT_EVENTS),
        (MESSAGES, stream(*MESSAGES_EVENTS, MESSAGES_DEATH_EVENT), MESSAGES_EVENTS),
        (RESPONSES, stream(*RESPONSES_EVENTS, is_cut=True), RESPONSES_EVENTS),
    ],
)
async def test_a_death_in_a_stream_is_one_event_in_the_clients_dialect(
    rig: Rig, path: str, script: object, shown: tuple[bytes, ...]
) -> None:
    await rig.start(StubEngine(script), StubEngine(script))  # type: ignore[arg-type]
    response = await ask(rig, path, stream=True)
    assert response.status_code == 200
    assert response.content.startswith(b"".join(shown))
    assert response.content.count(b"\n\n") == len(shown) + 1
    last = last_event(response.content)
    error = last["error"]
    assert isinstance(error, dict)
    code = "engine_reset" if path == RESPONSES else "engine_died"
    assert error["code"] == code
    assert b"EngineCore" not in response.content
    assert b"validation" not in response.content
    assert b"[DONE]" not in response.content
    assert last.get("type") == (None if path == CHAT else "error")
    line = rig.lines[-1]
    assert (line.status, line.error, line.retries) == (502, code, 0)
    assert [trouble.reason for trouble in rig.troubles] == [code]
    assert rig.reader.running(0) == rig.reader.running(1) == 0


@pytest.mark.parametrize(("shape", "status", "code"), [(BROKEN_EVENT, 500, "stream_failed"), (PARSE_EVENT, 400, "")])
@pytest.mark.parametrize("num_before", [0, 2])
async def test_another_error_event_is_passed_on_and_ends_the_stream(
    rig: Rig, shape: bytes, status: int, code: str, num_before: int
) -> None:
    engines = StubEngine(stream(*CHAT_EVENTS[:num_before], shape, DONE_EVENT)), StubEngine(echo())
    await rig.start(*engines)
    rig.push("ready", "backoff")
    async with rig.client() as client:
        response = await client.post(CHAT, json={"model": "m", "stream": True})
        assert response.status_code == 200
        assert response.content == b"".join(CHAT_EVENTS[:num_before]) + shape
        engines[0].scripts = [echo()]
        assert (await client.post(CHAT, json={"model": "m"})).status_code == 200  # on the same connection
    line = rig.lines[0]
    assert (line.status, line.error, line.retries) == (status, code, 0)
    assert rig.troubles == ([EngineTrouble("m-0", "stream_failed")] if code else [])
    await rig.settle()


async def test_an_error_event_reaches_clients_of_http_1_0_too(rig: Rig) -> None:
    await rig.start(StubEngine(stream(*CHAT_EVENTS, DEATH_EVENT, DONE_EVENT)))
    reader, writer = await rig.raw()
    body = b'{"model":"m","stream":true}'
    writer.write(b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
    _, _, content = (await reader.read()).partition(b"\r\n\r\n")
    assert content.startswith(b"".join(CHAT_EVENTS))
    assert last_event(content)["error"]["code"] == "engine_died"  # type: ignore[index]
    writer.close()


async def test_an_engine_may_close_in_its_error_event(rig: Rig) -> None:
    async def close_in_it(call: Call) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        await call.send(head + CHAT_EVENTS[0] + DEATH_EVENT[:-1])
        call.writer.close()

    await rig.start(StubEngine(close_in_it))
    response = await ask(rig, CHAT, stream=True)
    assert response.content.startswith(CHAT_EVENTS[0])
    assert last_event(response.content)["error"]["code"] == "engine_died"  # type: ignore[index]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_text_that_looks_like_an_error_event_is_text(rig: Rig, path: str) -> None:
    text = orjson.dumps('data: {"error": 1}\n\ndata: {"error"\nevent: error\n\n')
    events = (b'data: {"delta":%b}\n\n' % text, b'data: {"errors":[]}\n\n', b'data: {"echo": {"error":1}}\n\n')
    await rig.start(StubEngine(stream(*events)))
    response = await ask(rig, path, stream=True)
    assert response.content == b"".join(events)
    assert rig.lines[-1].error == ""


async def test_other_streams_are_untouched(rig: Rig) -> None:
    events = (*CHAT_EVENTS, *(event(number) for number in range(20)), DONE_EVENT)
    await rig.start(StubEngine(stream(*events)))
    response = await ask(rig, CHAT, stream=True)
    assert response.content == b"".join(events)
    assert (rig.lines[-1].status, rig.lines[-1].error) == (200, "")


# What is read from its errors.


def test_a_denial_is_known_in_either_dialect() -> None:
    for body in (UNKNOWN_MODEL, MESSAGES_UNKNOWN_MODEL):
        assert is_denial(body, "s@1")
        assert not is_denial(body, "s@2")
    # It takes what looks like a path out of its messages.
    cut = UNKNOWN_MODEL.replace(b"s@1", b"team<path>@3f2a91c04b7d")
    assert is_denial(cut, "team/support/v1.x@3f2a91c04b7d")
    assert not is_denial(b'{"detail":"Not Found"}', V1)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"error":"x"}', b'{"error":null}', b'{"error":{}}', b"Internal Server Error"]
)
def test_an_error_without_a_known_form_is_none_of_these(body: bytes) -> None:
    assert not is_death(body)
    assert not is_denial(body, V1)
    said = ErrorEvent(b"data: " + body + b"\n\n")
    assert (said.status, said.is_death) == (500, False)


def test_deaths_are_known_by_how_the_message_begins() -> None:
    assert all(map(is_death, (DEATH, SHUTDOWN, MESSAGES_DEATH)))
    assert all(map(is_death, (DEATH_EVENT + DONE_EVENT, b"event: error\r\ndata: " + DEATH + b"\r\n\r\n")))
    assert not is_death(BROKEN_EVENT + DEATH_EVENT)
    assert not is_death(b'{"error":{"message":"you wrote: EngineCore encountered an issue"}}')
    assert ErrorEvent(DEATH_EVENT).is_death
    assert ErrorEvent(MESSAGES_DEATH_EVENT).is_death
    assert ErrorEvent(PARSE_EVENT).status == 400
    assert not ErrorEvent(PARSE_EVENT).is_death
    assert ErrorEvent(b'data: {"error": {"code": true}}\n\n').status == 500
    assert ErrorEvent(b'data: {"error": {"code": "engine_error"}}\n\n').status == 500
    assert ErrorEvent(b'event: error\r\ndata: {"error": {"code": 503}}\r\n\r\n').status == 503
