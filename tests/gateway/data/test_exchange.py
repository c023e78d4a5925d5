"""What goes wrong on the hot path: clients that leave or stall, engines that die, refuse, or take too long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import orjson
import pytest

from gateway.data.framing import ChunkDecoder
from gateway.snapshot import Snapshot, Timeouts
from tests.gateway.data.rig import (
    DONE,
    Call,
    Rig,
    StubEngine,
    chunk,
    echo,
    event,
    post,
    stream,
)


async def hang(call: Call) -> None:
    await call.gone.wait()


async def refuse_port(engine: StubEngine) -> None:
    """The engine's port stays known, and nothing listens there any more."""
    await engine.stop()


def envelope(response: httpx.Response) -> dict[str, object]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


# Clients that leave.


async def test_disconnect_before_the_first_byte_reaches_the_engine(rig: Rig) -> None:
    engine = StubEngine(hang)
    await rig.start(engine)
    _, writer = await rig.raw()
    writer.write(post(b'{"model":"m"}'))
    while not engine.calls:
        await asyncio.sleep(0.005)
    assert rig.reader.running(0) == 1
    left = time.monotonic()
    writer.transport.abort()
    await asyncio.wait_for(engine.calls[0].gone.wait(), 1)
    assert time.monotonic() - left < 0.1
    await rig.settle()
    assert (rig.lines[-1].status, rig.lines[-1].error) == (499, "client_disconnected")


async def test_disconnect_in_a_stream_reaches_the_engine(rig: Rig) -> None:
    engine = StubEngine(stream(1000, gap_s=0.01))
    await rig.start(engine)
    reader, writer = await rig.raw()
    writer.write(post(b'{"model":"m","stream":true}'))
    await reader.readuntil(b'"n": 3')
    left = time.monotonic()
    writer.close()
    await asyncio.wait_for(engine.calls[0].gone.wait(), 1)
    assert time.monotonic() - left < 0.1
    await rig.settle()
    assert rig.lines[-1].status == 499


async def test_disconnect_while_dialling(rig: Rig) -> None:
    await rig.start(StubEngine(hang))
    _, writer = await rig.raw()
    writer.write(post(b'{"model":"m"}'))
    writer.transport.abort()
    await asyncio.sleep(0.05)
    await rig.settle()


# Engines that die.


async def test_refused_connection_goes_to_the_other_replica(rig: Rig) -> None:
    engines = StubEngine(echo()), StubEngine(echo())
    await rig.start(*engines)
    await refuse_port(engines[0])
    for _ in range(6):
        response = await rig.ask()
        assert response.status_code == 200
        assert response.headers["x-forgegate-engine"] == "m-1"
    assert {trouble.engine_id for trouble in rig.troubles} == {"m-0"}
    assert any(line.retries == 1 and "; " in line.why for line in rig.lines)


async def test_refused_everywhere_is_502(rig: Rig) -> None:
    engines = StubEngine(echo()), StubEngine(echo()), StubEngine(echo())
    await rig.start(*engines)
    for engine in engines:
        await refuse_port(engine)
    response = await rig.ask()
    assert response.status_code == 502
    assert envelope(response)["code"] == "engine_unreachable"
    assert rig.lines[-1].retries == 1  # one retry, not one for each replica


async def test_reset_before_the_first_byte_is_retried_elsewhere_once(rig: Rig) -> None:
    async def die(call: Call) -> None:
        call.kill()

    async def die_after_head(call: Call) -> None:
        await call.begin_stream()
        await asyncio.sleep(0.02)
        call.kill()

    for script in (die, die_after_head):
        engines = StubEngine(script), StubEngine(script)
        await rig.start(*engines)
        assert (await rig.ask()).status_code == 502
        assert [len(engine.calls) for engine in engines] == [1, 1]
        engines[1].scripts = [echo()]
        engines[0].scripts = [script]
        for _ in range(4):
            assert (await rig.ask()).status_code == 200
        await rig.settle()
        for engine in engines:
            await engine.stop()
        rig.relay.pool.close()
        rig._clock.cancel()
        rig._server.close()


async def test_stale_pooled_connection_is_replaced_by_a_fresh_one(rig: Rig) -> None:
    async def answer_and_die_on_the_next(call: Call) -> None:
        await call.send_json(200, {})
        await call.reader.readuntil(b"\r\n\r\n")
        call.kill()

    engine = StubEngine(answer_and_die_on_the_next, echo())
    await rig.start(engine)
    assert (await rig.ask()).status_code == 200
    assert (await rig.ask()).status_code == 200
    assert engine.num_connections == 2
    assert rig.lines[-1].retries == 1
    assert not rig.troubles


def sse_events(body: bytes) -> list[bytes]:
    assert body.endswith(b"\n\n")
    return body[:-2].split(b"\n\n")


@pytest.mark.parametrize(
    "cut", ["between", "inside chunk", "inside event", "inside size", "inside chunk end", "bad size"]
)
async def test_engine_killed_in_a_stream_ends_in_one_error_event(rig: Rig, cut: str) -> None:
    whole = chunk(event(0)) + chunk(event(1))
    last = {
        "between": b"",
        "inside chunk": chunk(event(2))[:20],
        "inside event": chunk(event(2)[:10]),
        "inside size": b"2",
        "inside chunk end": chunk(event(2))[:-1],
        "bad size": b"zz\r\n",
    }[cut]

    async def script(call: Call) -> None:
        await call.begin_stream()
        await call.send(whole)
        await asyncio.sleep(0.02)
        await call.send(last)
        await asyncio.sleep(0.02)
        call.kill()

    await rig.start(StubEngine(script), StubEngine(script))
    response = await rig.ask({"model": "m", "stream": True})  # httpx is strict about the framing
    events = sse_events(response.content)
    num_whole = 3 if cut == "inside chunk end" else 2
    assert [one + b"\n\n" for one in events[:-1]] == [event(number) for number in range(num_whole)]
    error = orjson.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error["type"] == "engine_error"
    assert sum(b"error" in one for one in events) == 1
    await rig.settle()
    assert rig.lines[-1].status == 502
    assert sum(len(engine.calls) for engine in rig.engines) == 1


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_engine_killed_in_a_plain_body_leaves_no_valid_end(rig: Rig, is_chunked: bool) -> None:
    async def script(call: Call) -> None:
        framing = b"transfer-encoding: chunked" if is_chunked else b"content-length: 100"
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + framing + b"\r\n\r\n")
        await call.send(chunk(b'{"a":') if is_chunked else b'{"a":')
        await asyncio.sleep(0.02)
        call.kill()

    await rig.start(StubEngine(script))
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.ask()
    await rig.settle()
    assert rig.lines[-1].error == "engine_reset"


async def test_engine_killed_in_a_plain_body_to_an_http_1_0_client_resets(rig: Rig) -> None:
    async def script(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc"))
        await asyncio.sleep(0.05)
        call.kill()

    await rig.start(StubEngine(script))
    reader, writer = await rig.raw()
    writer.write(post(b'{"model":"m"}').replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await reader.readuntil(b"abc")).endswith(b"\r\n\r\nabc")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_answer_that_is_no_http_is_502(rig: Rig) -> None:
    async def script(call: Call) -> None:
        await call.send(b"SSH-2.0-OpenSSH\r\n\r\n")
        await call.gone.wait()

    await rig.start(StubEngine(script))
    response = await rig.ask()
    assert response.status_code == 502
    assert envelope(response)["code"] == "engine_bad_answer"


@pytest.mark.parametrize("second", ["starting", "ready"])
async def test_a_retry_goes_where_the_newest_snapshot_says(rig: Rig, second: str) -> None:
    dies = asyncio.Event()

    async def die(call: Call) -> None:
        await dies.wait()
        call.kill()

    engines = StubEngine(die), StubEngine(echo())
    await rig.start(*engines)
    rig.push("ready", second)
    rig.relay.counters.add(1, 1, 1000)  # so that the first one is chosen
    running = asyncio.create_task(rig.ask())
    while not engines[0].calls:
        await asyncio.sleep(0.005)
    rig.relay.counters.add(1, -1, -1000)
    rig.push("ready", "ready" if second == "starting" else "asleep")
    dies.set()
    response = await running
    if second == "starting":
        assert (response.status_code, response.headers["x-forgegate-engine"]) == (200, "m-1")
        assert rig.lines[-1].retries == 1
    else:
        assert (response.status_code, envelope(response)["code"]) == (502, "engine_reset")
        assert engines[1].calls == []


async def test_a_retry_for_a_model_that_is_gone_has_its_old_replicas(rig: Rig) -> None:
    async def die(call: Call) -> None:
        rig.relay.swap(Snapshot(version=99))
        call.kill()

    await rig.start(StubEngine(die), StubEngine(echo()))
    rig.relay.counters.add(1, 1, 1000)
    response = await rig.ask()
    rig.relay.counters.add(1, -1, -1000)
    assert (response.status_code, response.headers["x-forgegate-engine"]) == (200, "m-1")


# Time-outs.


@pytest.mark.parametrize("phase", ["first_byte", "first_byte after head", "idle", "total"])
async def test_time_outs_before_an_answer(rig: Rig, phase: str) -> None:
    async def script(call: Call) -> None:
        if phase in ("first_byte after head", "idle"):
            await call.begin_stream()
        if phase == "idle":
            await call.send(chunk(event(0)))
        await call.gone.wait()

    limits = {phase.split()[0] + "_s": 0.15}
    rig.timeouts = Timeouts(**{"connect_s": 5, "first_byte_s": 5, "idle_s": 5, "total_s": 5, **limits})
    engines = StubEngine(script), StubEngine(script)
    await rig.start(*engines)
    begun = time.monotonic()
    response = await rig.ask({"model": "m", "stream": True})
    assert 0.1 < time.monotonic() - begun < 1
    if phase == "idle":
        assert response.status_code == 200
        error = orjson.loads(sse_events(response.content)[-1].removeprefix(b"data: "))["error"]
    else:
        assert response.status_code == 504
        error = envelope(response)
    assert error["code"] == f"{phase.split()[0]}_timeout"
    called = [engine.calls[0] for engine in engines if engine.calls]
    assert len(called) == 1  # a time-out is not retried
    await asyncio.wait_for(called[0].gone.wait(), 1)
    assert rig.lines[-1].status == 504


async def test_an_answer_that_comes_whole_may_take_longer_than_a_first_byte(rig: Rig) -> None:
    reply = echo()

    async def slow(call: Call) -> None:
        await asyncio.sleep(0.4)
        await reply(call)

    rig.timeouts = Timeouts(first_byte_s=0.15)
    await rig.start(StubEngine(slow))
    assert (await rig.ask()).status_code == 200


async def test_connect_time_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    rig.timeouts = Timeouts(connect_s=0.1)
    await rig.start(StubEngine(echo()), StubEngine(echo()))
    monkeypatch.setattr(rig.relay.pool, "dial", never)  # no black hole can be had on a loopback
    response = await rig.ask()
    assert response.status_code == 504
    assert envelope(response)["code"] == "connect_timeout"


async def test_a_slow_but_moving_stream_is_not_idle(rig: Rig) -> None:
    rig.timeouts = Timeouts(idle_s=0.2)
    await rig.start(StubEngine(stream(8, gap_s=0.08)))
    response = await rig.ask()
    assert len(sse_events(response.content)) == 9


# Pressure.


async def test_slow_client_slows_the_engine_and_holds_little_memory(rig: Rig) -> None:
    sent = 0

    async def flood(call: Call) -> None:
        nonlocal sent
        await call.begin_stream()
        piece = chunk(b"data: " + b"x" * 60_000 + b"\n\n")
        for _ in range(1000):
            await call.send(piece)
            sent += len(piece)
        await call.send(DONE)

    await rig.start(StubEngine(flood))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 16)
    writer.write(post(b'{"model":"m"}'))
    await reader.readexactly(1000)
    await asyncio.sleep(0.3)
    held = sent
    await asyncio.sleep(0.2)
    assert sent == held, "the engine went on sending to a client that does not read"
    assert held < 20_000_000  # kernel buffers of two loopback connections, and 64 KiB of ours
    (connection,) = rig.relay.connections
    assert connection._transport.get_write_buffer_size() < 1_000_000  # type: ignore[attr-defined]
    decoder = ChunkDecoder()
    total = 1000
    while piece := await reader.read(1 << 20):
        total += len(piece)
        if piece.endswith(b"\r\n0\r\n\r\n"):
            break
    assert total > 60_000_000
    assert not decoder.is_done
    writer.close()


async def test_client_that_never_reads_is_cut_after_the_idle_time(rig: Rig) -> None:
    async def flood(call: Call) -> None:
        await call.begin_stream()
        while not call.gone.is_set():
            await call.send(chunk(b"data: " + b"x" * 60_000 + b"\n\n"))

    rig.timeouts = Timeouts(idle_s=0.3)
    engine = StubEngine(flood)
    await rig.start(engine)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 16)
    writer.write(post(b'{"model":"m"}'))
    await reader.readexactly(10)
    for _ in range(200):
        if rig.lines:
            break
        await asyncio.sleep(0.02)
    assert rig.lines[-1].status == 499
    writer.transport.abort()


# Many at once.


async def test_two_hundred_streams_half_of_them_cut(rig: Rig) -> None:
    await rig.start(StubEngine(stream(20, gap_s=0.01)), StubEngine(stream(20, gap_s=0.01)))

    async def one(number: int) -> int:
        reader, writer = await rig.raw()
        writer.write(post(b'{"model":"m","stream":true}'))
        if number % 2:
            await reader.readuntil(b'"n": %d,' % (number % 19))
            writer.transport.abort()
            return 0
        data = await reader.readuntil(DONE)
        writer.close()
        return data.count(b'"n"')

    counts = await asyncio.gather(*(one(number) for number in range(200)))
    assert Counter(counts) == {0: 100, 20: 100}
    await rig.settle()
    assert {line.engine for line in rig.lines} == {"m-0", "m-1"}
    assert len(rig.lines) == 200
