"""The hot path end to end over real sockets: what reaches the engine, what reaches the client, what is left behind."""

from __future__ import annotations

import asyncio
import hashlib

import httpx
import orjson
import pytest

from gateway.snapshot import Key
from tests.gateway.data.rig import DONE, Call, Rig, StubEngine, chunk, echo, event, post, read_answer


def envelope(response: httpx.Response) -> dict[str, object]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


async def test_answer_and_headers(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    response = await rig.ask({"model": "m", "x": 1}, headers={"x-request-id": "mine-1"})
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-forgegate-engine"] == "m-0"
    assert response.headers["x-forgegate-model"] == "m@0123456789ab"
    assert response.headers["x-forgegate-queue-ms"].isdigit()
    assert orjson.loads(response.json()["got"]) == {"model": "m", "x": 1}
    line = rig.lines[-1]
    assert (line.request_id, line.status, line.engine, line.model) == ("mine-1", 200, "m-0", "m")
    assert line.why == "only ready replica"


async def test_engine_sees_its_own_secret_and_no_credentials_of_the_client(rig: Rig) -> None:
    rig.keys = (Key("k", hashlib.sha256(b"sk").hexdigest()),)
    engine = StubEngine(echo())
    await rig.start(engine)
    headers = {"authorization": "Bearer sk", "cookie": "a=b", "x-api-key": "sk", "connection": "x-hop", "x-hop": "1"}
    await rig.ask(headers=headers)
    head = engine.calls[0].head.lower()
    assert engine.calls[0].header("authorization") == "Bearer secret-0"
    assert engine.calls[0].header("host") == f"127.0.0.1:{engine.port}"
    assert b"bearer sk" not in head
    assert b"cookie" not in head
    assert b"x-api-key" not in head
    assert b"x-hop" not in head


@pytest.mark.parametrize("bad_id", ["", "a b", "x" * 129, "é"])
async def test_insane_request_ids_are_replaced(rig: Rig, bad_id: str) -> None:
    await rig.start(StubEngine(echo()))
    response = await rig.ask(headers={"x-request-id": bad_id.encode()})
    assert response.headers["x-request-id"].startswith("req-test-")


async def test_model_is_rewritten_only_when_the_engine_names_it_otherwise(rig: Rig) -> None:
    engine = StubEngine(echo())
    rig.served_name = "their/name"
    await rig.start(engine)
    raw = b'{ "messages":[{"model":"m"}], "model" : "m" , "n":1.0}'
    async with rig.client() as client:
        await client.post("/v1/completions", content=raw)
    assert engine.calls[0].body == raw.replace(b'"model" : "m"', b'"model" : "their/name"')


async def test_stream_is_relayed_chunk_by_chunk(rig: Rig) -> None:
    go = asyncio.Semaphore(0)

    async def script(call: Call) -> None:
        await call.begin_stream()
        for number in range(5):
            await call.send(chunk(event(number)))
            await go.acquire()
        await call.send(DONE)

    await rig.start(StubEngine(script))
    received = []
    async with rig.client() as client, client.stream("POST", "/v1/chat/completions", json={"model": "m"}) as response:
        async for piece in response.aiter_raw():
            received.append(piece)
            go.release()  # the next event is only made once this one has arrived
    assert received[:5] == [event(number) for number in range(5)]
    assert b"".join(received) == b"".join(event(number) for number in range(5)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("status", "extra"), [(429, b"retry-after: 9\r\n"), (400, b""), (500, b""), (503, b"retry-after: 2\r\n")]
)
async def test_engine_answers_pass_as_they_are(rig: Rig, status: int, extra: bytes) -> None:
    async def script(call: Call) -> None:
        await call.send_json(status, {"error": {"message": "mine"}}, extra)

    engines = StubEngine(script), StubEngine(script)
    await rig.start(*engines)
    response = await rig.ask()
    assert response.status_code == status
    assert response.json() == {"error": {"message": "mine"}}
    if extra:
        assert response.headers["retry-after"] == extra.split()[1].decode()
    assert sum(len(engine.calls) for engine in engines) == 1  # never retried


async def test_unready_model_says_why_and_when(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    rig.push("starting")
    response = await rig.ask()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert "loading weights" in str(envelope(response)["message"])


async def test_unknown_model_lists_what_exists(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    response = await rig.ask({"model": "gpt"})
    assert response.status_code == 404
    assert envelope(response) == {
        "message": "the model 'gpt' does not exist; there are: m",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }
    rig.relay.flush()
    assert 'model="gpt"' not in rig.relay.metrics.expose(rig.relay.index.snapshot, rig.reader).decode()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'"m"', b"null", b'{"model": "m"} x', b"\xff", b"{}", b'{"model":1}']
)
async def test_bad_bodies_are_400(rig: Rig, body: bytes) -> None:
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        response = await client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert envelope(response)["param"] == ("model" if body in (b"{}", b'{"model":1}') else None)


async def test_only_named_capabilities_are_relayed(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        assert (await client.post("/v1/embeddings", json={"model": "m"})).status_code == 404
        assert (await client.post("/tokenize", json={"model": "m"})).status_code == 200
        rig.capabilities = ("embeddings",)
        rig.push()
        assert (await client.post("/v1/embeddings", json={"model": "m"})).status_code == 200
        refused = await client.post("/tokenize", json={"model": "m"})
        assert refused.status_code == 404
        assert "embeddings" in str(envelope(refused)["message"])


async def test_keys(rig: Rig) -> None:
    rig.keys = tuple(Key(name, hashlib.sha256(name.encode()).hexdigest()) for name in ("one", "two"))
    await rig.start(StubEngine(echo()))
    for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}, {"authorization": "Bearer"}):
        response = await rig.ask(headers=headers)
        assert response.status_code == 401
        assert envelope(response)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    for name in ("one", "two"):
        assert (await rig.ask(headers={"authorization": f"bearer {name}"})).status_code == 200
        assert rig.lines[-1].key == name
    async with rig.client() as client:
        for path in ("/v1/models", "/v1/models/m", "/v1/nothing", "/%761/models", "/v1%2fmodels", "/openapi.json"):
            assert (await client.get(path)).status_code == 401
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("framing", [b"content-length: 1000000", b"transfer-encoding: chunked"])
async def test_a_stranger_is_refused_before_a_long_body_is_taken(rig: Rig, framing: bytes) -> None:
    rig.keys = (Key("one", hashlib.sha256(b"one").hexdigest()),)
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n")
    part = b"x" * 100_000
    writer.write(b"%x\r\n%b\r\n" % (len(part), part) if b"chunked" in framing else part)
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_revoked_key_is_refused_on_a_connection_that_used_it(rig: Rig) -> None:
    rig.keys = (Key("one", hashlib.sha256(b"one").hexdigest()),)
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        headers = {"authorization": "Bearer one"}
        for _ in range(3):
            assert (await client.post("/v1/completions", json={"model": "m"}, headers=headers)).status_code == 200
        rig.keys = (Key("two", hashlib.sha256(b"two").hexdigest()),)
        rig.push()
        assert (await client.post("/v1/completions", json={"model": "m"}, headers=headers)).status_code == 401


async def test_keep_alive_connections_are_reused_on_both_sides(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    reader, writer = await rig.raw()
    for _ in range(5):
        writer.write(post(b'{"model":"m"}'))
        status, headers, _ = await read_answer(reader)
        assert status == 200
        assert b"connection" not in headers
    assert engine.num_connections == 1
    assert len(rig.relay.connections) == 1
    writer.close()
