"""Engines that do not hold the adapter that they were said to hold, or die with it."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway.data.claim import MAX_ABSENCES
from gateway.data.complaints import is_denial
from gateway.snapshot import EngineTrouble, Uses, Want
from tests.gateway.data.asking import DENIAL, V1, V2, ask, code, served
from tests.gateway.data.rig import (
    Call,
    Rig,
    Script,
    StubEngine,
    chunk,
    echo,
    event,
)

VLLM = {
    "error": {"message": f"The model `{V1}` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
}


def deny(body: dict[str, object] = DENIAL) -> Script:
    """Answers as an engine that does not know the model."""

    async def script(call: Call) -> None:
        await call.send_json(404, body)

    return script


async def denied_chunked(call: Call) -> None:
    await call.send(
        b"HTTP/1.1 404 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"".join(chunk(orjson.dumps(DENIAL)[start : start + 20]) for start in range(0, len(orjson.dumps(DENIAL)), 20))
        + b"0\r\n\r\n"
    )


async def denied_in_events(call: Call) -> None:
    await call.send(
        b"HTTP/1.1 404 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunk(b"data: " + orjson.dumps(DENIAL).replace(b'{"error":', b'{"error": ') + b"\n\n")
        + b"0\r\n\r\n"
    )


# Names.


@pytest.mark.parametrize("script", [deny(), deny(VLLM), denied_chunked, denied_in_events])
async def test_a_denial_goes_to_the_other_replica(rig: Rig, script: Script) -> None:
    rig.hold(V1, "m-0", "m-1")
    engines = StubEngine(script), StubEngine(echo())
    await rig.start(*engines)
    for _ in range(6):
        response = await ask(rig, V1)
        assert served(response) == V1
        assert response.headers["x-forgegate-engine"] == "m-1"
    assert {(trouble.engine_id, trouble.reason) for trouble in rig.troubles} == {("m-0", "adapter_absent")}
    assert rig.wants == []
    assert rig.engines[0].num_connections <= 1  # a denial leaves the connection in order


async def test_a_denial_of_the_only_holder_waits_for_news_of_it(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    engine = StubEngine(deny(), echo())
    await rig.start(engine)
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    said = [report for report in rig.reports if not isinstance(report, Uses)]
    assert said == [EngineTrouble("m-0", "adapter_absent"), Want(V1)]
    assert rig.reader.running(0) == 0
    rig.push()  # still says what it said before
    await asyncio.sleep(0.05)
    assert len(engine.calls) == 1
    rig.hold(V1)
    rig.push()
    rig.hold(V1, "m-0")
    rig.push()
    response = await running
    assert served(response) == V1
    assert "x-forgegate-adapter-wait-ms" in response.headers
    assert rig.lines[-1].retries == 1


async def test_a_denial_older_than_the_snapshot_is_tried_again(rig: Rig) -> None:
    rig.hold(V1, "m-0")

    async def deny_late(call: Call) -> None:
        rig.hold(V1)
        rig.push()
        rig.hold(V1, "m-0")
        rig.push()
        await call.send_json(404, DENIAL)

    await rig.start(StubEngine(deny_late, echo()))
    assert served(await ask(rig, V1)) == V1
    assert rig.wants == []


async def test_a_denial_goes_to_a_replica_that_has_loaded_it_since(rig: Rig) -> None:
    rig.hold(V1, "m-0")

    async def deny_late(call: Call) -> None:
        rig.hold(V1, "m-1")
        rig.push()
        await call.send_json(404, DENIAL)

    await rig.start(StubEngine(deny_late), StubEngine(echo()))
    response = await ask(rig, V1)
    assert (served(response), response.headers["x-forgegate-engine"]) == (V1, "m-1")
    assert rig.wants == []


async def test_all_waits_of_a_request_count(rig: Rig) -> None:
    rig.adapter_wait_s = 0.3
    rig.hold(V1)
    await rig.start(StubEngine(deny()))
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    await asyncio.sleep(0.2)
    rig.hold(V1, "m-0")
    rig.push()
    response = await running
    assert (response.status_code, code(response)) == (503, "adapter_not_ready")
    assert 300 <= int(response.headers["x-forgegate-adapter-wait-ms"]) < 450


async def test_denials_without_end_are_503(rig: Rig) -> None:
    rig.hold(V1, "m-0")

    async def deny_and_reload(call: Call) -> None:
        rig.push()
        await call.send_json(404, DENIAL)

    engine = StubEngine(deny_and_reload)
    await rig.start(engine)
    response = await ask(rig, V1)
    assert (response.status_code, code(response)) == (503, "adapter_absent")
    assert len(engine.calls) == MAX_ABSENCES + 1
    assert rig.lines[-1].retries == MAX_ABSENCES


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no such tool", "type": "not_found_error", "param": "tools", "code": "tool_not_found"}},
        {"error": {"message": "Response with id 'r' not found.", "type": "NotFoundError", "param": None, "code": 404}},
        {"detail": "Not Found"},
        {},
    ],
)
async def test_other_404s_pass(rig: Rig, body: dict[str, object]) -> None:
    rig.hold(V1, "m-0")
    await rig.start(StubEngine(deny(body)))
    response = await ask(rig, V1)
    assert response.status_code == 404
    assert response.json() == body
    assert response.headers["x-forgegate-model"] == V1
    assert rig.troubles == []


async def test_another_404_in_events_passes_behind_its_head(rig: Rig) -> None:
    events = b'data: {"error": {"message": "no such tool", "code": "tool_not_found"}}\n\n'

    async def script(call: Call) -> None:
        await call.send(b"HTTP/1.1 404 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await call.send(chunk(events) + b"0\r\n\r\n")

    rig.hold(V1, "m-0")
    await rig.start(StubEngine(script))
    response = await ask(rig, V1, stream=True)
    assert (response.status_code, response.content) == (404, events)
    assert response.headers["x-forgegate-model"] == V1
    assert rig.troubles == []


async def test_a_404_of_a_base_model_passes(rig: Rig) -> None:
    await rig.start(StubEngine(deny()))
    response = await ask(rig, "m")
    assert (response.status_code, response.json()) == (404, DENIAL)


async def test_an_engine_that_dies_in_its_denial_is_a_lost_one(rig: Rig) -> None:
    async def die(call: Call) -> None:
        await call.send(b"HTTP/1.1 404 X\r\ncontent-length: 100\r\n\r\n{")
        await asyncio.sleep(0.02)
        call.kill()

    rig.hold(V1, "m-0", "m-1")
    await rig.start(StubEngine(die), StubEngine(die))
    assert code(await ask(rig, V1)) == "engine_reset"
    rig.engines[1].scripts = [echo()]
    async with rig.client() as client:
        for _ in range(8):  # on one connection, where a byte too much would show
            assert served(await client.post("/v1/chat/completions", json={"model": V1})) == V1
        assert len(rig.relay.connections) == 1


async def test_an_engine_that_dies_with_the_adapter_is_waited_for_once(rig: Rig) -> None:
    async def die(call: Call) -> None:
        call.kill()

    rig.hold(V1, "m-0")
    engines = StubEngine(die), StubEngine(echo())
    await rig.start(*engines)
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    assert rig.wants == [V1]
    rig.hold(V1, "m-1")
    rig.push("backoff", "ready")
    response = await running
    assert (served(response), response.headers["x-forgegate-engine"]) == (V1, "m-1")

    rig.hold(V1, "m-0", "m-1")
    engines[1].scripts = [die]
    rig.push()
    response = await ask(rig, V1)
    assert (response.status_code, code(response)) == (502, "engine_reset")


async def test_a_stream_that_has_begun_is_never_begun_again(rig: Rig) -> None:
    async def die_in_stream(call: Call) -> None:
        await call.begin_stream()
        await call.send(chunk(event(0)))
        await asyncio.sleep(0.02)
        call.kill()

    rig.hold(V1, "m-0", "m-1")
    await rig.start(StubEngine(die_in_stream), StubEngine(die_in_stream))
    response = await ask(rig, V1, stream=True)
    assert b'"code":"engine_reset"' in response.content
    assert sum(len(engine.calls) for engine in rig.engines) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"null", b'{"error":null}', b'{"error":"x"}', b'{"error":{}}', b"<html>", b'{"error":{"type":[1]}}'],
)
def test_nothing_else_is_a_denial(answer: bytes) -> None:
    assert not is_denial(answer, V1)


def test_denials_of_the_messages_api_are_known() -> None:
    ours = {"type": "error", "error": {"type": "not_found_error", "message": "x", "code": "model_not_found"}}
    vllm = {"type": "error", "error": {"type": "not_found_error", "message": f"The model `{V1}` does not exist."}}
    assert is_denial(orjson.dumps(ours), V1)
    assert is_denial(orjson.dumps(vllm), V1)
    assert not is_denial(orjson.dumps(vllm), V2)
