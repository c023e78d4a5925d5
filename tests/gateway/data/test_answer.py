"""Errors of an engine's that come as event streams: the answer is judged whole, like any other error."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.data.rig import Call, Rig, Script, StubEngine, chunk, echo, post, read_answer


def error_stream(events: bytes, framing: str) -> Script:
    """An answer of status 500 whose body is an event stream."""

    async def script(call: Call) -> None:
        head = b"HTTP/1.1 500 X\r\ncontent-type: text/event-stream\r\n"
        if framing == "chunked":
            await call.send(head + b"transfer-encoding: chunked\r\n\r\n" + chunk(events) + b"0\r\n\r\n")
        elif framing == "length":
            await call.send(head + b"content-length: %d\r\n\r\n" % len(events) + events)
        else:
            await call.send(head + b"connection: close\r\n\r\n" + events)
            call.writer.close()

    return script


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_death_told_in_the_events_of_a_500_is_another_replicas_to_answer(rig: Rig, framing: str) -> None:
    death = b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\ndata: [DONE]\n\n'
    await rig.start(StubEngine(error_stream(death, framing)), StubEngine(echo()))
    reader, writer = await rig.raw()
    for number in range(6):  # on one connection, where a second head would be taken for the next answer
        writer.write(post(b'{"model":"m","n":%d}' % number))
        status, headers, content = await asyncio.wait_for(read_answer(reader), 2)
        assert (status, headers[b"x-forgegate-engine"]) == (200, b"m-1")
        assert b'\\"n\\":%d' % number in content
    writer.close()
    assert {line.retries for line in rig.lines} == {0, 1}
    assert {(trouble.engine_id, trouble.reason) for trouble in rig.troubles} == {("m-0", "engine_died")}


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_another_error_in_the_events_of_a_500_is_passed_on_behind_its_head(rig: Rig, framing: str) -> None:
    events = b'data: {"error": {"message": "boom", "code": 500}}\n\ndata: [DONE]\n\n'
    await rig.start(StubEngine(error_stream(events, framing)))
    async with rig.client() as client:
        for _ in range(2):
            response = await client.post("/v1/chat/completions", json={"model": "m", "stream": True})
            assert (response.status_code, response.content) == (500, events)
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["x-forgegate-engine"] == "m-0"
    assert [(line.status, line.error, line.retries) for line in rig.lines] == [(500, "", 0)] * 2
