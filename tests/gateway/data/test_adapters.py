"""Requests for adapters: which version answers, the wait for a cold one."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import orjson
import pytest

from gateway.data.snapshot import ENDPOINTS
from gateway.errors import NoEngineReady
from gateway.snapshot import Key, Timeouts
from tests.gateway.data.asking import ADMIN, DENIAL, V1, V2, ask, code, served
from tests.gateway.data.rig import (
    ADMIN_TOKEN,
    DONE,
    Call,
    Rig,
    StubEngine,
    chunk,
    echo,
    post,
    read_answer,
    stream,
)

# Names.


async def test_a_version_is_asked_where_it_is_resident_under_its_own_name(rig: Rig) -> None:
    rig.hold(V1, "m-1")
    await rig.start(StubEngine(echo()), StubEngine(echo()))
    for _ in range(6):
        response = await ask(rig, V1)
        assert response.headers["x-forgegate-engine"] == "m-1"
        assert served(response) == V1
        assert "x-forgegate-adapter-wait-ms" not in response.headers
    line = rig.lines[-1]
    assert (line.model, line.resolved, line.base, line.adapter_wait_ms) == (V1, V1, "m", None)


async def test_an_alias_resolves_to_its_version_and_flips_at_once(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2, "m-0")
    rig.split("support", **{"111111111111": 1})
    await rig.start(StubEngine(echo()))
    assert served(await ask(rig, "support")) == V1
    rig.split("support", **{"222222222222": 1})
    rig.push()
    assert served(await ask(rig, "support")) == V2
    assert (rig.lines[-1].model, rig.lines[-1].resolved) == ("support", V2)


async def test_a_stream_in_flight_keeps_its_version(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2, "m-0")
    rig.split("support", **{"111111111111": 1})
    engine = StubEngine(stream(5, gap_s=0.02))
    await rig.start(engine)
    running = asyncio.create_task(ask(rig, "support", stream=True))
    while not engine.calls:
        await asyncio.sleep(0.005)
    rig.split("support", **{"222222222222": 1})
    rig.hold(V1)
    rig.push()
    response = await running
    assert response.headers["x-forgegate-model"] == V1
    assert response.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"user": "U"}, {}),
        ({"safety_identifier": "U", "user": "other-{n}"}, {}),
        ({"metadata": {"user_id": "U"}}, {}),
        ({"user": "other-{n}"}, {"X-Session-Id": "U"}),
    ],
)
async def test_a_split_is_sticky(rig: Rig, fields: dict[str, object], headers: dict[str, str]) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2, "m-0")
    rig.split("support", **{"111111111111": 1, "222222222222": 1})
    await rig.start(StubEngine(echo()))
    versions = []
    async with rig.client() as client:
        for user in range(12):
            seen = set()
            for turn in range(3):
                text = orjson.dumps({"model": "support", **fields}).decode()
                body = text.replace('"U"', f'"u{user}"').replace("{n}", str(turn))
                own = dict.fromkeys(headers, f"u{user}")
                seen.add(served(await client.post("/v1/chat/completions", content=body, headers=own)))
            assert len(seen) == 1
            versions += seen
    assert set(versions) == {V1, V2}


async def test_a_split_without_user_is_random(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2, "m-0")
    rig.split("support", **{"111111111111": 3, "222222222222": 1})
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        answers = [await client.post("/v1/chat/completions", json={"model": "support"}) for _ in range(200)]
    counts = Counter(map(served, answers))
    assert 120 < counts[V1] < 180


@pytest.mark.parametrize("fields", [{"user": 7}, {"metadata": [1]}, {"metadata": None}, {"metadata": {"user_id": {}}}])
async def test_a_user_of_the_wrong_type_is_the_engines_to_judge(rig: Rig, fields: dict[str, object]) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2, "m-0")
    rig.split("support", **{"111111111111": 1, "222222222222": 1})
    await rig.start(StubEngine(echo()))
    assert (await ask(rig, "support", **fields)).status_code == 200


@pytest.mark.parametrize("path", sorted({*ENDPOINTS} - {"/v1/embeddings"}))
async def test_every_path_of_the_base_takes_an_adapter(rig: Rig, path: str) -> None:
    rig.capabilities = ("chat", "completions", "tokenize", "responses", "messages")
    rig.hold(V1, "m-0")
    rig.split("support", **{"111111111111": 1})
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        assert served(await client.post(path, json={"model": "support"})) == V1
        missing = await client.post("/v1/embeddings", json={"model": "support"})
    assert (missing.status_code, code(missing)) == (404, "not_found")


# Candidates.


async def test_a_candidate_exists_for_the_admin_alone(rig: Rig) -> None:
    rig.hold(V1, "m-0", is_candidate=True)
    await rig.start(StubEngine(echo()))
    hidden, unknown = await ask(rig, V1), await ask(rig, "support@000000000000")
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["error"]["message"].replace("1" * 12, "0" * 12) == unknown.json()["error"]["message"]
    assert (await ask(rig, V1, {"authorization": "Bearer guess"})).status_code == 404
    assert served(await ask(rig, V1, ADMIN)) == V1
    assert served(await ask(rig, V1, {"x-api-key": ADMIN_TOKEN.decode()})) == V1


async def test_with_keys_the_admin_token_is_one_and_a_clients_key_is_not_it(rig: Rig) -> None:
    sha256 = "e7cf3ef4f17c3999a94f2c6f612e8a888e5b1026878e4e19398b23bd38ec221a"  # of "Password"
    rig.keys = (Key("app", sha256),)
    rig.hold(V1, "m-0", is_candidate=True)
    await rig.start(StubEngine(echo()))
    assert (await ask(rig, V1, {"authorization": "Bearer Password"})).status_code == 404
    assert (await ask(rig, "m", {"authorization": "Bearer Password"})).status_code == 200
    assert served(await ask(rig, V1, ADMIN)) == V1
    assert rig.lines[-1].key == "(admin)"


# Cold adapters.


async def test_a_cold_adapter_is_wanted_once_for_all_who_wait_and_answers_when_it_is_resident(rig: Rig) -> None:
    rig.hold(V1)
    rig.hold(V2, "m-0")
    await rig.start(StubEngine(echo()))
    assert served(await ask(rig, V2)) == V2
    running = [asyncio.create_task(ask(rig, V1)) for _ in range(3)]
    await rig.waiting(3)
    assert rig.wants == [V1]
    assert rig.uses[:2] == [V2, V1]  # said before the want
    assert rig.reader.running(0) == 0
    rig.push()  # nothing new in it: a want may have been lost
    await rig.waiting(3)
    await asyncio.sleep(0.05)
    assert rig.wants == [V1, V1]
    rig.hold(V1, "m-0")
    rig.push()
    for response in await asyncio.gather(*running):
        assert served(response) == V1
        assert 50 <= int(response.headers["x-forgegate-adapter-wait-ms"]) < 5000
        assert int(response.headers["x-forgegate-queue-ms"]) >= 50
    assert rig.lines[-1].adapter_wait_ms is not None
    assert "x-forgegate-adapter-wait-ms" not in (await ask(rig, V1)).headers
    assert rig.wants == [V1, V1]


async def test_all_who_wait_go_on_with_the_snapshot(rig: Rig) -> None:
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    running = [asyncio.create_task(ask(rig, V1)) for _ in range(5)]
    await rig.waiting(5)
    rig.hold(V1, "m-0")
    rig.push()
    assert rig.reader.running(0) == 5, "what comes later would overtake"
    assert {served(response) for response in await asyncio.gather(*running)} == {V1}


async def test_a_refusal_answers_who_waits_and_who_comes(rig: Rig) -> None:
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    rig.hold(V1, refusal="its proof failed on every engine", retry_after_s=9)
    rig.push()
    for response in (await running, await ask(rig, V1)):
        assert (response.status_code, code(response)) == (503, "adapter_not_ready")
        assert response.headers["retry-after"] == "9"
        assert "its proof failed" in response.json()["error"]["message"]
        assert response.headers["x-forgegate-model"] == V1
    assert rig.wants == [V1]
    assert [line.adapter_wait_ms is None for line in rig.lines] == [False, True]


async def test_a_wait_ends(rig: Rig) -> None:
    rig.adapter_wait_s = 0.1
    rig.hold(V1, retry_after_s=4)
    await rig.start(StubEngine(echo()))
    response = await ask(rig, V1)
    assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "adapter_not_ready", "4")
    assert int(response.headers["x-forgegate-adapter-wait-ms"]) >= 100
    assert (await ask(rig, V1)).status_code == 503
    assert rig.wants == [V1, V1]  # nobody waited in between


async def test_the_requests_total_time_holds_in_line_too(rig: Rig) -> None:
    rig.timeouts = Timeouts(total_s=0.1)
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    response = await ask(rig, V1)
    assert (response.status_code, code(response)) == (504, "total_timeout")


async def test_the_line_is_bounded(rig: Rig) -> None:
    rig.max_adapter_waiting = 2
    rig.hold(V1, retry_after_s=3)
    await rig.start(StubEngine(echo()))
    running = [asyncio.create_task(ask(rig, V1)) for _ in range(2)]
    await rig.waiting(2)
    response = await ask(rig, V1)
    assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "adapter_not_ready", "3")
    rig.hold(V1, "m-0")
    rig.push()
    assert [served(answer) for answer in await asyncio.gather(*running)] == [V1, V1]


async def test_a_client_that_leaves_gives_up_its_place(rig: Rig) -> None:
    rig.hold(V1)
    engine = StubEngine(echo())
    await rig.start(engine)
    _, writer = await rig.raw()
    writer.write(post(b'{"model":"%b"}' % V1.encode()))
    await rig.waiting(1)
    writer.transport.abort()
    await rig.waiting(0)
    rig.hold(V1, "m-0")
    rig.push()
    await rig.settle()
    assert engine.calls == []
    assert (rig.lines[-1].status, rig.lines[-1].error) == (499, "client_disconnected")
    assert rig.lines[-1].adapter_wait_ms is not None


async def test_an_adapter_that_is_removed_answers_who_waits(rig: Rig) -> None:
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    running = asyncio.create_task(ask(rig, V1))
    await rig.waiting(1)
    del rig.adapters[V1]
    rig.push()
    response = await running
    assert (response.status_code, code(response)) == (503, "adapter_not_ready")
    assert "was removed" in response.json()["error"]["message"]
    assert (await ask(rig, V1)).status_code == 404


async def test_without_any_ready_engine_nobody_waits(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    await rig.start(StubEngine(echo()))
    rig.push("starting")
    response = await ask(rig, V1)
    assert (response.status_code, code(response), response.headers["retry-after"]) == (503, "no_engine_ready", "7")
    assert rig.wants == []


async def test_a_drain_serves_who_waits_and_its_end_answers_the_rest(rig: Rig) -> None:
    rig.hold(V1)
    rig.hold(V2)
    await rig.start(StubEngine(echo()))
    running = [asyncio.create_task(ask(rig, name)) for name in (V1, V2)]
    await rig.waiting(2)
    rig.relay.is_draining = True
    rig.hold(V1, "m-0")
    rig.push()
    first = await running[0]
    assert served(first) == V1
    assert first.headers["connection"] == "close"
    rig.relay.abandon(NoEngineReady("the gateway is shutting down", retry_after_s=1))
    second = await running[1]
    assert (second.status_code, second.headers["connection"]) == (503, "close")
    assert len(rig.relay.line) == 0


async def test_a_pipelined_request_waits_behind_a_parked_one(rig: Rig) -> None:
    rig.hold(V1)
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    writer.write(post(b'{"model":"%b"}' % V1.encode()) + post(b'{"model":"m"}'))
    await rig.waiting(1)
    rig.hold(V1, "m-0")
    rig.push()
    for name in (V1, "m@0123456789ab"):
        status, headers, _ = await read_answer(reader)
        assert (status, headers[b"x-forgegate-model"]) == (200, name.encode())
    writer.close()


# The books.


async def test_uses_go_out_with_the_tick_each_once_in_order_of_last_use(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2, "m-0")
    await rig.start(StubEngine(echo()))
    rig.relay.note_use(V1)
    rig.relay.note_use(V2)
    rig.relay.note_use(V1)
    rig.relay.tick()
    assert rig.uses == [V2, V1]
    rig.relay.tick()
    assert len(rig.reports) == 1


async def test_metrics_count_by_alias(rig: Rig) -> None:
    rig.hold(V1, "m-0")
    rig.hold(V2)
    rig.split("support", **{"111111111111": 3, "222222222222": 1})
    await rig.start(StubEngine(echo()))
    for _ in range(4):
        await ask(rig, "support", user="one")  # whose version is the first
    await ask(rig, V1)
    running = asyncio.create_task(ask(rig, V2))
    await rig.waiting(1)
    async with rig.client() as client:
        page = (await client.get("/metrics")).text
        assert "forgegate_adapter_waiting 1.0" in page
        rig.hold(V2, "m-0")
        rig.push()
        await running
        page = (await client.get("/metrics")).text
    assert 'forgegate_requests_total{engine="m-0",model="support",status="200"} 4.0' in page
    assert 'forgegate_requests_total{engine="m-0",model="support@*",status="200"} 2.0' in page
    assert 'forgegate_adapter_wait_seconds_count{model="support@*"} 1.0' in page
    assert "forgegate_adapter_waiting 0.0" in page
    assert f'forgegate_alias_share{{adapter="{V1}",alias="support"}} 0.75' in page
    assert f'forgegate_adapter_resident{{adapter="{V2}",engine="m-0"}} 1.0' in page


# Many at once.


async def test_swaps_under_load(rig: Rig) -> None:
    """Streams of an alias that flips while versions come and go: each is whole, and of the version that its head names."""

    async def name_itself(call: Call) -> None:
        model = str(call.json()["model"]).encode()
        if orjson.loads(call.body)["model"] not in resident:
            await call.send_json(404, DENIAL)
            return
        await call.begin_stream()
        for _ in range(5):
            await call.send(chunk(b"data: " + model + b"\n\n"))
            await asyncio.sleep(0.004)
        await call.send(DONE)

    resident = {V1}
    rig.max_adapter_waiting = 256
    rig.hold(V1, "m-0", "m-1")
    rig.hold(V2)
    rig.split("support", **{"111111111111": 1})
    await rig.start(StubEngine(name_itself), StubEngine(name_itself))

    async def one(client: httpx.AsyncClient) -> str:
        response = await client.post("/v1/chat/completions", json={"model": "support", "stream": True})
        version = response.headers["x-forgegate-model"]
        assert response.status_code == 200
        assert response.content == f"data: {version}\n\n".encode() * 5 + b"data: [DONE]\n\n"
        return version

    async def flip() -> None:
        for number in range(10):
            new, old = (V2, V1) if number % 2 == 0 else (V1, V2)
            rig.split("support", **{new[8:]: 1})
            rig.hold(old)
            rig.push()  # the new one is cold: requests wait
            await asyncio.sleep(0.02)
            resident.discard(old)
            resident.add(new)
            rig.hold(new, "m-0", "m-1")
            rig.push()
            await asyncio.sleep(0.02)

    async def several(client: httpx.AsyncClient) -> set[str]:
        return {await one(client) for _ in range(8)}

    async with rig.client() as client:
        _, *versions = await asyncio.gather(flip(), *(several(client) for _ in range(20)))
    assert set().union(*versions) == {V1, V2}
    await rig.settle()
