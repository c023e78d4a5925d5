"""Requests sent ahead: to where their adapter is loaded and not recognised yet. Nothing of an answer is heard before it is."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.snapshot import Timeouts
from tests.gateway.data.asking import DENIAL, V1, ask, code, served
from tests.gateway.data.rig import DONE, Call, Rig, StubEngine, chunk, echo, event, post, stream

PATIENCE_S = 10


async def loaded(rig: Rig, *engines: str) -> None:
    """Control says that the version is loaded there, and being recognised."""
    rig.hold(V1, unproven=engines)
    rig.push()


async def called(engine: StubEngine, num: int = 1) -> Call:
    """The engine's newest call, once it has had `num` of them."""
    async with asyncio.timeout(PATIENCE_S):
        while len(engine.calls) < num:
            await asyncio.sleep(0.002)
    assert len(engine.calls) == num
    return engine.calls[-1]


async def gone(call: Call) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await call.gone.wait()


def until_gone(answer: bytes = b"") -> object:
    """Says `answer`, then nothing more before the gateway closes the connection."""

    async def script(call: Call) -> None:
        if answer:
            await call.begin_stream()
            await call.send(answer)
        await call.gone.wait()

    return script


def waiting(rig: Rig, **fields: object) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(ask(rig, V1, **fields))


async def test_the_engine_answers_while_its_adapter_is_recognised_and_the_client_hears_it_after(rig: Rig) -> None:
    engine = StubEngine(stream(3))
    rig.hold(V1)
    await rig.start(engine)
    reader, writer = await rig.raw()
    writer.write(post(b'{"model":"%b","stream":true}' % V1.encode()))
    await rig.waiting(1)
    await loaded(rig, "m-0")
    call = await called(engine)
    assert call.json()["model"] == V1
    assert (len(rig.relay.line), rig.reader.running(0)) == (1, 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    rig.hold(V1, "m-0")
    rig.push()
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.readuntil(DONE)
    assert event(2) in answer
    assert b"x-forgegate-engine: m-0" in answer
    waited_ms = int(answer.partition(b"x-forgegate-adapter-wait-ms: ")[2].partition(b"\r\n")[0])
    assert waited_ms >= 100
    await rig.settle()
    assert (len(engine.calls), rig.reader.running(0), rig.wants) == (1, 0, [V1])
    line = rig.lines[-1]
    assert (line.status, line.engine, line.why, line.retries) == (200, "m-0", "sent ahead", 0)
    assert line.ttfb_ms >= line.adapter_wait_ms >= 100
    assert line.queue_ms < line.adapter_wait_ms, "it was with the engine long before its wait was over"
    writer.close()


async def test_what_is_not_recognised_is_cut_and_nobody_hears_of_it(rig: Rig) -> None:
    engine = StubEngine(until_gone(chunk(event(0))))  # type: ignore[arg-type]
    rig.hold(V1)
    await rig.start(engine)
    running = waiting(rig, stream=True)
    await rig.waiting(1)
    await loaded(rig, "m-0")
    call = await called(engine)
    rig.hold(V1)
    rig.push()
    await gone(call)
    assert (len(rig.relay.line), rig.reader.running(0)) == (1, 0), "it waits on"
    rig.hold(V1, refusal="its proof failed on every engine", retry_after_s=9)
    rig.push()
    response = await running
    assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "adapter_not_ready", "9")
    assert "x-forgegate-engine" not in response.headers
    assert event(0) not in response.content
    await rig.settle()
    assert (rig.lines[-1].engine, rig.lines[-1].ttfb_ms, len(rig.lines)) == ("", None, 1)
    assert rig.troubles == []


async def test_a_refusal_cuts_it_too(rig: Rig) -> None:
    engine = StubEngine(until_gone(chunk(event(0))))  # type: ignore[arg-type]
    rig.hold(V1)
    await rig.start(engine)
    running = waiting(rig)
    await rig.waiting(1)
    await loaded(rig, "m-0")
    call = await called(engine)
    rig.hold(V1, refusal="its files are gone")
    rig.push()
    assert code(await running) == "adapter_not_ready"
    await gone(call)
    assert rig.reader.running(0) == 0


async def test_after_a_call_back_it_goes_where_the_adapter_is(rig: Rig) -> None:
    first, second = StubEngine(until_gone()), StubEngine(echo())  # type: ignore[arg-type]
    rig.hold(V1)
    await rig.start(first, second)
    running = waiting(rig)
    await rig.waiting(1)
    await loaded(rig, "m-0")
    call = await called(first)
    rig.hold(V1, "m-1")
    rig.push()
    response = await running
    assert (served(response), response.headers["x-forgegate-engine"]) == (V1, "m-1")
    await gone(call)
    assert (rig.reader.running(0), rig.lines[-1].why) == (0, "only ready replica")


async def test_it_goes_ahead_again_where_the_adapter_is_loaded_next(rig: Rig) -> None:
    first, second = StubEngine(until_gone()), StubEngine(echo())  # type: ignore[arg-type]
    rig.hold(V1)
    await rig.start(first, second)
    running = waiting(rig)
    await rig.waiting(1)
    await loaded(rig, "m-0")
    call = await called(first)
    await loaded(rig, "m-1")
    await gone(call)
    await called(second)
    rig.hold(V1, "m-1")
    rig.push()
    assert served(await running) == V1
    assert (len(second.calls), rig.lines[-1].why) == (1, "sent ahead")


async def test_who_comes_meanwhile_goes_ahead_at_once(rig: Rig) -> None:
    engine = StubEngine(echo())
    rig.hold(V1, unproven=("m-0",))
    await rig.start(engine)
    running = [waiting(rig) for _ in range(3)]
    await called(engine, 3)
    assert len(rig.relay.line) == 3
    rig.hold(V1, "m-0")
    rig.push()
    for response in await asyncio.gather(*running):
        assert served(response) == V1
    assert len(engine.calls) == 3


async def test_a_client_that_leaves_meanwhile_ends_it(rig: Rig) -> None:
    engine = StubEngine(until_gone(chunk(event(0))))  # type: ignore[arg-type]
    rig.hold(V1, unproven=("m-0",))
    await rig.start(engine)
    _, writer = await rig.raw()
    writer.write(post(b'{"model":"%b","stream":true}' % V1.encode()))
    call = await called(engine)
    writer.transport.abort()
    await gone(call)
    await rig.settle()
    assert (rig.lines[-1].status, rig.reader.running(0), len(rig.relay.line)) == (499, 0, 0)


async def test_the_wait_is_as_long_as_any(rig: Rig) -> None:
    engine = StubEngine(until_gone(chunk(event(0))))  # type: ignore[arg-type]
    rig.adapter_wait_s = 1
    rig.timeouts = Timeouts(connect_s=0.05, first_byte_s=0.05, total_s=5)
    rig.hold(V1, unproven=("m-0",), retry_after_s=4)
    await rig.start(engine)
    response = await ask(rig, V1, stream=True)
    assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "adapter_not_ready", "4")
    assert "x-forgegate-engine" not in response.headers
    await gone(await called(engine))
    assert rig.troubles == []


async def test_the_first_byte_has_its_time_from_when_it_is_read(rig: Rig) -> None:
    engine = StubEngine(until_gone())  # type: ignore[arg-type]
    rig.timeouts = Timeouts(first_byte_s=0.1, total_s=5)
    rig.hold(V1, unproven=("m-0",))
    await rig.start(engine)
    running = waiting(rig, stream=True)
    await called(engine)
    await asyncio.sleep(0.15)
    assert not running.done()
    rig.hold(V1, "m-0")
    rig.push()
    response = await running
    assert (response.status_code, code(response)) == (504, "first_byte_timeout")


async def test_a_launch_that_ended_is_another_place(rig: Rig) -> None:
    """Its successor may have recognised the version already, on another port."""
    old, new = StubEngine(until_gone(chunk(event(0)))), StubEngine(echo())  # type: ignore[arg-type]
    rig.hold(V1, unproven=("m-0",))
    await rig.start(old)
    running = waiting(rig)
    call = await called(old)
    await new.start()
    rig.engines = [new]
    rig.hold(V1, "m-0")
    rig.push()
    assert served(await running) == V1
    await gone(call)
    await old.stop()


async def test_where_it_cannot_be_sent_ahead_it_waits_as_ever(rig: Rig) -> None:
    engine = StubEngine(echo())
    rig.hold(V1)
    await rig.start(engine)
    running = waiting(rig)
    await rig.waiting(1)
    await engine.stop()  # it takes no connection
    await loaded(rig, "m-0")
    async with asyncio.timeout(PATIENCE_S):
        while not rig.troubles:
            await asyncio.sleep(0.002)
    rig.push()
    assert rig.reader.running(0) == 0
    assert (await ask(rig, "nobody")).status_code == 404, "meanwhile it would have been refused again"
    assert (len(rig.relay.line), rig.reader.running(0), len(rig.troubles)) == (1, 0, 1)
    await engine.start()
    rig.hold(V1, "m-0")
    rig.push()
    assert served(await running) == V1
    assert (rig.lines[-1].retries, rig.lines[-1].why) == (0, "only ready replica")
    assert (len(engine.calls), len(rig.troubles)) == (1, 1)


async def test_an_engine_that_dies_meanwhile_is_seen_once_it_is_read(rig: Rig) -> None:
    async def die(call: Call) -> None:
        call.kill()

    first, second = StubEngine(die), StubEngine(echo())
    rig.hold(V1, unproven=("m-0",))
    await rig.start(first, second)
    running = waiting(rig)
    await called(first)
    rig.hold(V1, "m-0", "m-1")
    rig.push()
    response = await running
    assert (served(response), response.headers["x-forgegate-engine"]) == (V1, "m-1")


async def test_a_denial_is_one_once_it_is_read(rig: Rig) -> None:
    async def deny(call: Call) -> None:
        await call.send_json(404, DENIAL)

    engine = StubEngine(deny, echo())
    rig.hold(V1, unproven=("m-0",))
    await rig.start(engine)
    running = waiting(rig)
    await called(engine)
    rig.hold(V1, "m-0")
    rig.push()
    await rig.waiting(1)
    assert [trouble.reason for trouble in rig.troubles] == ["adapter_absent"]
    rig.hold(V1)
    rig.push()
    await loaded(rig, "m-0")
    await called(engine, 2)
    rig.hold(V1, "m-0")
    rig.push()
    assert served(await running) == V1


async def test_a_path_that_is_not_served_is_not_tried(rig: Rig) -> None:
    engine = StubEngine(echo())
    rig.hold(V1)
    await rig.start(engine)
    running = waiting(rig)
    await rig.waiting(1)
    rig.capabilities = ("completions",)
    await loaded(rig, "m-0")
    assert rig.reader.running(0) == 0
    _, writer = await rig.raw()
    writer.write(post(b'{"model":"%b"}' % V1.encode(), path=b"/v1/completions"))
    call = await called(engine)
    assert call.head.startswith(b"POST /v1/completions "), "the only one, though the other came first"
    rig.hold(V1, "m-0")
    rig.push()
    assert (await running).status_code == 404
    await rig.settle()
    assert len(engine.calls) == 1
    writer.close()
