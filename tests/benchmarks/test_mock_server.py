import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import orjson
import pytest

from benchmarks.client import Client, Target
from benchmarks.http1 import Exchange
from benchmarks.mock_behaviour import Behaviour, BehaviourError, Wanted
from benchmarks.mock_server import MockEngine
from benchmarks.mock_wire import TOKENS, token
from benchmarks.record import Record
from benchmarks.transcript import stamped_events

Ask = Callable[..., Awaitable[Record]]
CHAT = {"model": "mock", "messages": [{"role": "user", "content": "one two three"}]}


async def post(client: Client, path: str = "/v1/chat/completions", **fields: object) -> Exchange:
    return await client.post(path, orjson.dumps(CHAT | fields))


async def seen(engine: MockEngine, name: str, at_least: int) -> None:
    for _ in range(1500):
        if getattr(engine.stats, name) >= at_least:
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{name} stays below {at_least}: {engine.stats}")


def test_neighbouring_tokens_differ_in_every_request():
    assert len(set(TOKENS)) == len(TOKENS)
    for number in range(30):
        texts = [token(number, index) for index in range(120)]
        assert all(one != other for one, other in itertools.pairwise(texts))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(None, 0, False), (10, "stop")),
        (Wanted(4, 0, False), (4, "length")),
        (Wanted(50, 0, False), (10, "stop")),
        (Wanted(50, 20, False), (20, "stop")),
        (Wanted(50, 0, True), (50, "length")),
        (Wanted(0, 0, False), (0, "length")),
    ],
)
def test_length(wanted: Wanted, expected: tuple[int, str]):
    assert wanted.length(10) == expected


def test_overrides_are_checked():
    assert Behaviour().overridden({"ttft_ms": "5", "tokens": 3}) == Behaviour(ttft_ms=5.0, tokens=3)
    with pytest.raises(BehaviourError, match="did you mean 'ttft_ms'"):
        Behaviour().overridden({"tttf_ms": 1})
    with pytest.raises(BehaviourError, match="must be a number"):
        Behaviour().overridden({"tokens": "many"})
    with pytest.raises(BehaviourError, match="between 0 and 1"):
        Behaviour(error_rate=2)


async def test_whole_answer_without_stream(client: Client):
    body = orjson.loads((await post(client, max_tokens=5)).body)
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"]
    text = orjson.loads((await post(client, "/v1/completions", prompt="a b", max_tokens=5)).body)
    assert (text["object"], text["usage"]["prompt_tokens"]) == ("text_completion", 2)


async def test_stream_has_role_then_chunks_then_finish_usage_done(client: Client):
    exchange = await post(client, stream=True, max_tokens=3, stream_options={"include_usage": True})
    *events, last = [data for _, data in stamped_events(exchange)]
    messages = [orjson.loads(data) for data in events]
    assert last == b"[DONE]"
    assert messages[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [message["mock"]["chunk"] for message in messages if "mock" in message] == [0, 1, 2]
    assert messages[-2]["choices"][0]["finish_reason"] == "length"
    assert messages[-1]["usage"]["completion_tokens"] == 3
    assert len({message["id"] for message in messages}) == 1


async def test_usage_only_on_request_and_completions_stream(client: Client):
    exchange = await post(client, "/v1/completions", prompt=[5, 6, 7], stream=True, max_tokens=2)
    messages = [orjson.loads(data) for _, data in stamped_events(exchange) if data != b"[DONE]"]
    assert all("usage" not in message for message in messages)
    assert all(message["object"] == "text_completion" for message in messages)


async def test_header_and_body_override(engine: MockEngine, client: Client, ask: Ask):
    assert (await ask(max_tokens=50, mock={"tokens": 4})).completion_tokens == 4
    body = orjson.dumps(CHAT)
    head = client.target.head("POST", "/v1/chat/completions", len(body)).replace(
        b"\r\n\r\n", b"\r\nx-mock: tokens=6\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(engine.host, engine.port)
    writer.write(head + body)
    assert b"200 OK" in await reader.readline()
    length = 0
    while (line := await reader.readline()) != b"\r\n":
        if line.startswith(b"content-length"):
            length = int(line.split(b":")[1])
    assert orjson.loads(await reader.readexactly(length))["usage"]["completion_tokens"] == 6
    writer.close()


async def test_chunks_may_hold_several_tokens(ask: Ask):
    record = await ask(max_tokens=9, mock={"tokens_per_chunk": 4})
    assert (len(record.chunk_times_s), record.completion_tokens) == (3, 9)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"model": None}, 400, "model"),
        ({"messages": []}, 400, "messages"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"mock": {"nonsense": 1}}, 400, "mock"),
    ],
)
async def test_refusals(client: Client, fields: dict[str, object], status: int, param: str):
    exchange = await post(client, **fields)
    assert exchange.status == status
    assert orjson.loads(exchange.body)["error"]["param"] == param


async def test_not_json_not_a_path_not_the_method(client: Client):
    assert (await client.post("/v1/chat/completions", b"{")).status == 400
    assert (await client.get("/nowhere")).status == 404
    assert (await client.get("/v1/chat/completions")).status == 405


async def test_secret_guards_all_but_health():
    async with MockEngine(secret="s3cret") as engine:
        for key, expected in ((None, 401), ("wrong", 401), ("s3cret", 200)):
            client = Client(Target.from_url(engine.url, key))
            assert (await client.get("/v1/models")).status == expected
            assert (await client.get("/metrics")).status == expected
            assert (await client.get("/health")).status == 200
            client.close()


async def test_slots_queue_and_refusal():
    async with MockEngine(Behaviour(ttft_ms=30, itl_ms=0, tokens=1), num_slots=1, max_waiting=1) as engine:
        client = Client(Target.from_url(engine.url))
        running = [asyncio.ensure_future(post(client)) for _ in range(2)]
        await seen(engine, "num_waiting", 1)
        refused = await post(client)
        assert refused.status == 429
        assert refused.headers[b"retry-after"] == b"1"
        metrics = (await client.get("/metrics")).body.decode()
        assert "forgegate_engine_num_requests_running 1\n" in metrics
        assert "forgegate_engine_num_requests_waiting 1\n" in metrics
        assert [(await each).status for each in running] == [200, 200]
        assert (engine.stats.num_running, engine.stats.num_waiting, engine.stats.max_running) == (0, 0, 1)
        client.close()


async def test_disconnects_are_seen_and_free_the_slot(engine: MockEngine):
    reader, writer = await asyncio.open_connection(engine.host, engine.port)
    body = orjson.dumps(CHAT | {"stream": True, "max_tokens": 5000, "mock": {"tokens": 5000}})
    writer.write(Target.from_url(engine.url).head("POST", "/v1/chat/completions", len(body)) + body)
    await reader.readuntil(b"mock")
    writer.transport.abort()
    await seen(engine, "num_disconnects_seen", 1)
    assert engine.stats.num_running == 0
    client = Client(Target.from_url(engine.url))
    stats = orjson.loads((await client.get("/mock/stats")).body)
    assert stats["num_disconnects_seen"] == 1
    assert json.loads(stats["last_request"]["body"])["max_tokens"] == 5000
    client.close()


async def test_pipelined_requests_are_answered_in_order(engine: MockEngine):
    reader, writer = await asyncio.open_connection(engine.host, engine.port)
    target = Target.from_url(engine.url)
    body = orjson.dumps(CHAT | {"max_tokens": 1})
    post = target.head("POST", "/v1/chat/completions", len(body)) + body
    writer.write(post + target.head("GET", "/health") + target.head("GET", "/v1/models", keep_alive=False))
    answers = await asyncio.wait_for(reader.read(), 5)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b"chat.completion") < answers.index(b'"status":"ok"') < answers.index(b'"object":"list"')
    writer.close()


async def test_a_slow_reader_gets_everything(engine: MockEngine):
    reader, writer = await asyncio.open_connection(engine.host, engine.port, limit=1024)
    body = orjson.dumps(CHAT | {"stream": True, "max_tokens": 4000, "mock": {"tokens": 4000, "itl_ms": 0}})
    writer.write(Target.from_url(engine.url).head("POST", "/v1/chat/completions", len(body), keep_alive=False) + body)
    await asyncio.sleep(0.2)
    whole = await asyncio.wait_for(reader.read(), 10)
    assert whole.count(b'"sent_s"') == 4000
    assert whole.endswith(b"0\r\n\r\n")
    writer.close()


async def test_rates_are_seeded(engine: MockEngine, ask: Ask):
    async def outcomes() -> list[bool]:
        engine.rng.seed(5)
        return [(await ask(max_tokens=1, mock={"error_rate": 0.5})).is_ok for _ in range(20)]

    first = await outcomes()
    assert first == await outcomes()
    assert 3 < sum(first) < 17


async def test_the_official_client_accepts_it(engine: MockEngine):
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="any", max_retries=0) as sdk:
        call = {"model": "mock", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        whole = await sdk.chat.completions.create(**call)
        assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (4, "length")
        stream = await sdk.chat.completions.create(**call, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage.completion_tokens == 4
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await sdk.chat.completions.create(**call | {"model": "other"})
        broken = await sdk.chat.completions.create(**call, stream=True, extra_body={"mock": {"error_event_after": 2}})
        with pytest.raises(openai.APIError, match="told to fail here"):
            [chunk async for chunk in broken]


def test_command_drains_on_sigterm():
    argv = [sys.executable, "-m", "benchmarks.cli", "mock", "--port", "0", "--models", "a,b", "--ttft-ms", "300"]
    child = subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "FORGEGATE_ENGINE_SECRET": "k"}
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split()[4]
        client = Client(Target.from_url(url, "k"))

        async def drained() -> Exchange:
            answer = asyncio.ensure_future(post(client, model="b", max_tokens=1))
            await asyncio.sleep(0.1)
            child.send_signal(signal.SIGTERM)
            return await answer

        began_s = time.monotonic()
        assert asyncio.run(drained()).status == 200
        assert child.wait(5) == 0
        assert time.monotonic() - began_s < 3
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


@pytest.mark.parametrize(
    ("at_s", "expected_s"), [(20.0, 20.0), (28.9, 28.9), (29.5, 30.0), (29.999, 30.0), (30.0, 30.0)]
)
def test_stalls_end_at_multiples_of_their_period(at_s: float, expected_s: float):
    assert Behaviour(stall_ms=1000, stall_every_ms=10_000).after_stall_s(at_s) == pytest.approx(expected_s)
    assert Behaviour().after_stall_s(at_s) == at_s


def test_a_stall_must_end():
    with pytest.raises(BehaviourError, match="below stall_every_ms"):
        Behaviour(stall_ms=100, stall_every_ms=100)


@pytest.mark.parametrize(
    ("given", "num"), [("one two", 1), (["one", "two three"], 2), ([5, 6, 7], 1), ([[5, 6], [7]], 2)]
)
async def test_embeddings(client: Client, given: object, num: int):
    exchange = await client.post("/v1/embeddings", orjson.dumps({"model": "mock", "input": given}))
    body = orjson.loads(exchange.body)
    vectors = [row["embedding"] for row in body["data"]]
    assert [row["index"] for row in body["data"]] == list(range(num))
    assert len({tuple(vector) for vector in vectors}) == num
    assert body["usage"]["prompt_tokens"] in (2, 3)
    assert (await client.post("/v1/embeddings", b'{"model": "mock"}')).status == 400
