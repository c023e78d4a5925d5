"""Requests that wait for an engine which starts on demand."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.errors import NoEngineReady
from gateway.snapshot import Timeouts, Uses, Want, WantEngine
from tests.gateway.data.asking import V1, ask, code, served
from tests.gateway.data.rig import Rig, StubEngine, echo, post, read_answer, stream

HEADER = "x-forgegate-engine-wait-ms"


@pytest.fixture
def rig(rig: Rig) -> Rig:
    rig.is_on_demand = True
    return rig


async def test_one_start_is_asked_for_and_all_who_wait_go_on_with_the_engine(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    running = [asyncio.create_task(rig.ask()) for _ in range(4)]
    await rig.waiting(4)
    assert rig.reports == [WantEngine("m")]
    rig.push("starting")
    rig.push("starting")  # another line of its progress
    assert rig.engine_wants == ["m"]
    assert rig.reader.running(0) == 0
    await asyncio.sleep(0.05)
    rig.push("ready")
    assert rig.reader.running(0) == 4, "what comes later would overtake"
    for response in await asyncio.gather(*running):
        assert response.status_code == 200
        assert response.headers["x-forgegate-engine"] == "m-0"
        assert 50 <= int(response.headers[HEADER]) < 5000
        assert int(response.headers["x-forgegate-queue-ms"]) >= 50
    line = rig.lines[-1]
    assert (line.status, line.error, line.resolved, line.base) == (200, "", "m@0123456789ab", "")
    assert line.engine_wait_ms is not None
    assert line.adapter_wait_ms is None
    assert line.queue_ms >= line.engine_wait_ms >= 50
    assert HEADER not in (await rig.ask()).headers
    assert rig.lines[-1].engine_wait_ms is None


async def test_a_stream_waits_too(rig: Rig) -> None:
    rig.timeouts = Timeouts(first_byte_s=0.2)  # counts from the moment at which it is sent
    await rig.start(StubEngine(stream(3)))
    rig.push("asleep")
    running = asyncio.create_task(rig.ask({"model": "m", "stream": True}))
    await rig.waiting(1)
    await asyncio.sleep(0.3)
    rig.push("ready")
    response = await running
    assert response.status_code == 200
    assert int(response.headers[HEADER]) >= 300
    assert response.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("state", ["stopped", "asleep", "starting", "backoff", "draining"])
async def test_whatever_state_it_comes_from(rig: Rig, state: str) -> None:
    await rig.start(StubEngine(echo()), StubEngine(echo()))
    rig.push("failed", state)
    running = asyncio.create_task(rig.ask())
    await rig.waiting(1)
    assert rig.engine_wants == ["m"]
    rig.push("failed", "ready")
    assert (await running).headers["x-forgegate-engine"] == "m-1"


async def test_a_ready_replica_is_asked_at_once(rig: Rig) -> None:
    await rig.start(StubEngine(echo()), StubEngine(echo()))
    rig.push("stopped", "ready")
    response = await rig.ask()
    assert (response.headers["x-forgegate-engine"], HEADER in response.headers) == ("m-1", False)
    assert rig.engine_wants == []


async def test_engines_that_are_always_resident_are_not_waited_for(rig: Rig) -> None:
    rig.is_on_demand = False
    await rig.start(StubEngine(echo()))
    for state in ("starting", "stopped", "asleep"):
        rig.push(state)
        response = await rig.ask()
        assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "no_engine_ready", "7")
        assert "m-0: loading weights" in response.json()["error"]["message"]
    assert rig.engine_wants == []


async def test_a_failed_start_answers_who_waits_and_who_comes_with_its_reason(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    rig.push("starting")
    running = asyncio.create_task(rig.ask())
    await rig.waiting(1)
    rig.detail = "out of memory: 3 GiB wanted, 1 GiB free"
    rig.push("failed")
    first, second = await running, await rig.ask()
    for response in (first, second):
        assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "no_engine_ready", "7")
        assert "m-0: out of memory: 3 GiB wanted, 1 GiB free" in response.json()["error"]["message"]
    assert (HEADER in first.headers, HEADER in second.headers) == (True, False)
    assert [line.engine_wait_ms is None for line in rig.lines] == [False, True]
    assert rig.lines[0].resolved == "m@0123456789ab"


async def test_a_wait_ends(rig: Rig) -> None:
    rig.engine_wait_s = 0.1
    await rig.start(StubEngine(echo()))
    rig.push("starting")
    response = await rig.ask()
    assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "no_engine_ready", "7")
    assert response.json()["error"]["message"].endswith("(m-0: loading weights), nor was one within 0.1 s")
    assert int(response.headers[HEADER]) >= 100
    assert response.headers["x-forgegate-model"] == "m@0123456789ab"
    assert (rig.lines[-1].status, rig.lines[-1].error) == (503, "no_engine_ready")


async def test_the_requests_total_time_holds_in_line_too(rig: Rig) -> None:
    rig.timeouts = Timeouts(total_s=0.1)
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    response = await rig.ask()
    assert (response.status_code, code(response)) == (504, "total_timeout")


async def test_the_line_is_bounded_apart_from_the_one_for_adapters(rig: Rig) -> None:
    rig.max_engine_waiting, rig.max_adapter_waiting = 2, 1
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    running = [asyncio.create_task(rig.ask()) for _ in range(2)]
    running.append(asyncio.create_task(ask(rig, V1)))
    await rig.waiting(3)
    full = await rig.ask()
    assert (full.status_code, code(full), full.headers["retry-after"]) == (503, "no_engine_ready", "7")
    assert "and 2 requests wait for engines already" in full.json()["error"]["message"]
    assert HEADER not in full.headers
    other = await ask(rig, V1)
    assert (other.status_code, code(other)) == (503, "adapter_not_ready")
    rig.hold(V1, "m-0")
    rig.push("ready")
    assert {response.status_code for response in await asyncio.gather(*running)} == {200}


async def test_a_client_that_leaves_gives_up_its_place(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    rig.push("stopped")
    _, writer = await rig.raw()
    writer.write(post(b'{"model":"m"}'))
    await rig.waiting(1)
    writer.transport.abort()
    await rig.waiting(0)
    rig.push("ready")
    await rig.settle()
    assert engine.calls == []
    assert (rig.lines[-1].status, rig.lines[-1].error) == (499, "client_disconnected")
    assert rig.lines[-1].engine_wait_ms is not None


async def test_a_drain_serves_who_waits_and_its_end_answers_the_rest(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    rig.push("starting")
    first = asyncio.create_task(rig.ask())
    await rig.waiting(1)
    rig.relay.is_draining = True
    rig.push("ready")
    response = await first
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    rig.relay.is_draining = False
    rig.push("stopped")
    second = asyncio.create_task(rig.ask())
    await rig.waiting(1)
    rig.relay.is_draining = True
    rig.relay.abandon(NoEngineReady("the gateway is shutting down", retry_after_s=1))
    response = await second
    assert (response.status_code, response.headers["connection"]) == (503, "close")
    assert len(rig.relay.line) == 0


async def test_a_pipelined_request_waits_behind_a_parked_one(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    reader, writer = await rig.raw()
    writer.write(post(b'{"model":"m"}') + post(b'{"model":"m"}'))
    await rig.waiting(1)
    rig.push("ready")
    first, second = await read_answer(reader), await read_answer(reader)
    assert (first[0], HEADER.encode() in first[1]) == (200, True)
    assert (second[0], HEADER.encode() in second[1]) == (200, False)
    writer.close()


async def test_an_engine_that_breaks_the_request_it_was_started_for_is_not_started_again_for_it(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    rig.push("stopped")
    running = asyncio.create_task(rig.ask())
    await rig.waiting(1)
    await engine.stop()
    rig.push("ready")
    response = await running
    assert (response.status_code, code(response)) == (502, "engine_unreachable")
    assert HEADER in response.headers
    assert rig.engine_wants == ["m"]


async def test_an_engine_may_turn_out_not_to_serve_what_was_asked(rig: Rig) -> None:
    rig.capabilities = ("chat", "embeddings")
    engine = StubEngine(echo())
    await rig.start(engine)
    rig.push("stopped")
    async with rig.client() as client:
        running = asyncio.create_task(client.post("/v1/embeddings", json={"model": "m", "input": "x"}))
        await rig.waiting(1)
        rig.capabilities = ("chat",)
        rig.push("ready")
        response = await running
    assert (response.status_code, code(response)) == (404, "not_found")
    assert "does not serve /v1/embeddings (it serves: /v1/chat/completions)" in response.json()["error"]["message"]
    assert engine.calls == []


# With adapters.


async def test_a_request_for_an_adapter_waits_for_it_alone(rig: Rig) -> None:
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    assert rig.reports == [Uses((V1,)), Want(V1)]
    rig.push("ready")  # the engine is there, the adapter is not
    await asyncio.sleep(0.03)
    await rig.waiting(1)
    rig.hold(V1, "m-0")
    rig.push("ready")
    response = await running
    assert served(response) == V1
    assert "x-forgegate-adapter-wait-ms" in response.headers
    assert HEADER not in response.headers
    assert rig.lines[-1].engine_wait_ms is None


async def test_its_wait_includes_the_engines_start(rig: Rig) -> None:
    rig.adapter_wait_s, rig.engine_wait_s = 0.05, 0.3
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    response = await ask(rig, V1)
    assert (response.status_code, code(response)) == (503, "adapter_not_ready")
    assert "not loaded within 0.35 s" in response.json()["error"]["message"]
    assert int(response.headers["x-forgegate-adapter-wait-ms"]) >= 350


async def test_a_failed_start_answers_who_waits_for_an_adapter(rig: Rig) -> None:
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    rig.push("failed")
    for response in (await running, await ask(rig, V1)):
        assert (response.status_code, code(response)) == (503, "no_engine_ready")
        assert "m-0: loading weights" in response.json()["error"]["message"]


# What others see.


async def test_the_gateway_is_ready_for_requests_that_start_an_engine(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        rig.push("stopped")
        assert (await client.get("/health/ready")).status_code == 200
        rig.push("failed")
        assert (await client.get("/health/ready")).status_code == 503
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["m"]


async def test_metrics(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    rig.push("stopped")
    running = asyncio.create_task(rig.ask())
    await rig.waiting(1)
    async with rig.client() as client:
        page = (await client.get("/metrics")).text
        assert "forgegate_engine_waiting 1.0" in page
        assert "forgegate_adapter_waiting 0.0" in page
        assert 'forgegate_engine_state{engine="m-0",model="m",state="stopped"} 1.0' in page
        rig.push("ready")
        await running
        page = (await client.get("/metrics")).text
    assert "forgegate_engine_waiting 0.0" in page
    assert 'forgegate_engine_wait_seconds_count{model="m"} 1.0' in page
    assert "forgegate_adapter_wait_seconds_count" not in page


async def test_engines_that_come_and_go_under_load(rig: Rig) -> None:
    """Every request is answered whole, however often the engine is put to sleep in between."""
    rig.max_engine_waiting = 256
    await rig.start(StubEngine(stream(4, gap_s=0.003)))

    async def several(client: httpx.AsyncClient) -> None:
        for _ in range(8):
            response = await client.post("/v1/chat/completions", json={"model": "m", "stream": True})
            assert response.status_code == 200
            assert response.content.count(b'"n": ') == 4
            assert response.content.endswith(b"data: [DONE]\n\n")

    async def doze() -> None:
        for _ in range(10):
            for state in ("draining", "asleep", "starting", "ready"):
                rig.push(state)
                await asyncio.sleep(0.015)

    async with rig.client() as client:
        await asyncio.gather(doze(), *(several(client) for _ in range(16)))
    assert len(rig.lines) == 128
    assert any(line.engine_wait_ms for line in rig.lines)
    await rig.settle()
