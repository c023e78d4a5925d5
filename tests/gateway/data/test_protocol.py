"""The public port: malformed and hostile requests, limits, pipelining, hot and cold on one connection."""

from __future__ import annotations

import asyncio
import random
import time

import orjson
import pytest

from gateway.data import protocol
from tests.gateway.data.rig import Call, Rig, StubEngine, echo, event, post, read_answer, stream

BODY = b'{"model":"m"}'


async def converse(rig: Rig, data: bytes) -> bytes:
    """Send raw bytes, return everything until the gateway closes."""
    reader, writer = await rig.raw()
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no version": b"POST /v1/chat/completions\r\n\r\n",
    "two lengths": START + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "two different lengths": START + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "length and chunked": START + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": START + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "gzip, chunked": START + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": START + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "signed length": START + b"content-length: +3\r\n\r\nabc",
    "space before colon": START + b"content-length : 3\r\n\r\nabc",
    "folded header": START + b"a: b\r\n c\r\n\r\n",
    "bare line feeds": b"POST /v1/chat/completions HTTP/1.1\nhost: x\ncontent-length: 0\n\n",
    "bad chunk size": START + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 2": b"GET /health/live HTTP/2.0\r\nhost: x\r\n\r\n",
    "upgrade": START + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_http_is_400_and_closed(rig: Rig, name: str) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    answer = await converse(rig, MALFORMED[name])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_http"
    assert not engine.calls


async def test_smuggled_second_request_is_never_served(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    smuggled = post(b'{"model":"m","evil":1}')
    answer = await converse(rig, MALFORMED["length and chunked"] + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not engine.calls


@pytest.mark.parametrize("times", [1, 3])
async def test_a_known_head_opens_no_door(rig: Rig, times: int) -> None:
    """After the plain head is in the table, variants of it must still be parsed strictly."""
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    for _ in range(times):
        writer.write(post(BODY))
        assert (await read_answer(reader))[0] == 200
    doubled = post(BODY).replace(b"\r\n\r\n", b"\r\ncontent-length: 13\r\n\r\n", 1)
    writer.write(doubled)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_known_heads_with_other_lengths_and_split_bodies(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    reader, writer = await rig.raw()
    dice = random.Random(7)
    for size in (0, 1, 10, 5000, 70_000, 300_000, 3):
        body = orjson.dumps({"model": "m", "pad": "x" * size})
        data = post(body)
        cut = dice.randrange(len(data) - len(body), len(data))
        writer.write(data[:cut])
        await asyncio.sleep(0.01)
        writer.write(data[cut:])
        assert (await read_answer(reader))[0] == 200
        assert engine.calls[-1].body == body
    writer.close()


async def test_body_limit(rig: Rig) -> None:
    rig.max_body_bytes = 100
    engine = StubEngine(echo())
    await rig.start(engine)
    fitting = BODY + b" " * (100 - len(BODY))
    reader, writer = await rig.raw()
    for _ in range(2):
        writer.write(post(fitting))
        assert (await read_answer(reader))[0] == 200
    writer.write(post(fitting + b" "))  # a known head, but for the length
    assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    chunked = START + b"transfer-encoding: chunked\r\n\r\n" + b"40\r\n" + b" " * 64 + b"\r\n"
    answer = await converse(rig, chunked + b"40\r\n" + b" " * 64 + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert len(engine.calls) == 2


async def test_answer_to_a_refused_upload_survives_the_upload(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    writer.write(START + b"content-length: 50000000\r\n\r\n")
    for _ in range(40):
        writer.write(b"x" * 65536)
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_expect_100_continue(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    head, _, _ = post(BODY, b"expect: 100-continue").partition(b"\r\n\r\n")
    for _ in range(2):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await read_answer(reader))[0] == 200
    writer.close()


async def test_expect_100_continue_for_too_much_is_refused_before_the_body(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    answer = await converse(rig, START + b"expect: 100-continue\r\ncontent-length: 50000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_head_limit(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    for answer in (
        await converse(rig, START + b"a: " + b"x" * 70_000),
        await converse(rig, START + b"".join(b"a%d: %b\r\n" % (n, b"x" * 1000) for n in range(70)) + b"\r\n"),
        await converse(rig, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"),
    ):
        assert answer.startswith(b"HTTP/1.1 431 ")
    big_body = post(orjson.dumps({"model": "m", "pad": "x" * 200_000}))
    reader, writer = await rig.raw()
    writer.write(big_body)
    assert (await read_answer(reader))[0] == 200
    writer.close()


async def test_slow_head_and_body_are_408(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.1)
    monkeypatch.setattr(protocol, "BODY_IDLE_S", 0.1)
    await rig.start(StubEngine(echo()))
    assert (await converse(rig, START)).startswith(b"HTTP/1.1 408 ")
    assert (await converse(rig, post(BODY)[:-3])).startswith(b"HTTP/1.1 408 ")
    reader, writer = await rig.raw()
    writer.write(post(BODY))
    await read_answer(reader)
    writer.write(post(BODY)[:-3])  # by way of the table of known heads
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_idle_connections_close(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 0.1)
    await rig.start(StubEngine(echo()))
    assert await converse(rig, b"") == b""
    reader, writer = await rig.raw()
    writer.write(post(BODY))
    await read_answer(reader)
    assert await asyncio.wait_for(reader.read(), 1) == b""
    writer.close()


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    async def slow_then_fast(call: Call) -> None:
        await asyncio.sleep(0.05 if b'"n":0' in call.body else 0)
        await call.send_json(200, {"got": call.body.decode()})

    await rig.start(StubEngine(slow_then_fast))
    reader, writer = await rig.raw()
    live = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    parts = [post(b'{"model":"m","n":%d}' % n) + live for n in range(4)]
    writer.write(b"".join(parts) + post(b"[]") + b"nonsense\r\n\r\n")
    for n in range(4):
        status, _, body = await read_answer(reader)
        assert status == 200
        assert b'n\\":%d' % n in body
        assert (await read_answer(reader))[2] == b'{"status":"ok"}'
    assert (await read_answer(reader))[0] == 400
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_thousand_pipelined_refusals_do_not_recurse(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    writer.write(post(b"[]") * 1000)
    for _ in range(1000):
        assert (await read_answer(reader))[0] == 400
    writer.close()


async def test_random_segmentation_of_requests(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    dice = random.Random(3)
    for round_ in range(6):
        bodies = [orjson.dumps({"model": "m", "n": n, "pad": "é" * dice.randrange(50)}) for n in range(8)]
        chunked = START + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(bodies[0]), bodies[0])
        data = chunked + b"".join(post(body) for body in bodies[1:])
        reader, writer = await rig.raw()
        pos = 0
        while pos < len(data):
            step = dice.randrange(1, 10 if round_ % 2 else 400)
            writer.write(data[pos : pos + step])
            pos += step
            await asyncio.sleep(0.001 if pos % 7 == 0 else 0)
        for body in bodies:
            status, _, answer = await read_answer(reader)
            assert status == 200
            assert orjson.loads(answer)["got"] == body.decode()
        writer.close()


async def test_http_1_0_and_connection_close(rig: Rig) -> None:
    await rig.start(StubEngine(stream(3)))
    whole = b"".join(event(n) for n in range(3)) + b"data: [DONE]\n\n"
    answer = await converse(rig, post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"transfer-encoding" not in answer
    assert answer.endswith(b"\r\n\r\n" + whole)
    answer = await converse(rig, post(BODY, b"connection: close"))
    assert b"connection: close" in answer
    assert answer.endswith(b"0\r\n\r\n")


async def test_absolute_targets_and_queries(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    reader, writer = await rig.raw()
    writer.write(post(BODY, path=b"http://h:1/v1/completions?a=b%20c"))
    assert (await read_answer(reader))[0] == 200
    assert engine.calls[0].head.startswith(b"POST /v1/completions?a=b%20c HTTP/1.1\r\n")
    assert rig.lines[-1].path == "/v1/completions"
    writer.close()


async def test_half_closed_client_counts_as_gone(rig: Rig) -> None:
    async def hang(call: Call) -> None:
        await call.gone.wait()

    engine = StubEngine(hang)
    await rig.start(engine)
    reader, writer = await rig.raw()
    writer.write(post(BODY))
    while not engine.calls:
        await asyncio.sleep(0.005)
    writer.write_eof()
    await asyncio.wait_for(engine.calls[0].gone.wait(), 1)
    assert await reader.read() == b""
    writer.close()


async def test_draining_finishes_what_runs_and_closes_the_rest(rig: Rig) -> None:
    await rig.start(StubEngine(stream(10, gap_s=0.02)))
    idle_reader, idle_writer = await rig.raw()
    reader, writer = await rig.raw()
    writer.write(post(BODY))
    await reader.readuntil(b'"n": 2')
    rig.relay.is_draining = True
    begun = time.monotonic()
    assert await asyncio.wait_for(idle_reader.read(), 1) == b""
    assert (await reader.read()).endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
    assert time.monotonic() - begun < 1
    assert not rig.relay.connections
    writer.close()
    idle_writer.close()
