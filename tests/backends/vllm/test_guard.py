from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from backends.vllm.inside.guard import MAX_ADAPTERS, SECRET, Guard
from tests.backends.vllm.tiny_server import BASE, TinyServer

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


class _Quiet(uvicorn.Server):
    def install_signal_handlers(self) -> None: ...


class Site:
    """The guarded server over a real socket."""

    def __init__(self, server: TinyServer, client: httpx.AsyncClient, port: int) -> None:
        self.server = server
        self.client = client
        self.port = port

    async def load(self, name: str = "a", path: str = "/a", **more: Any) -> httpx.Response:
        return await self.client.post(LOAD, json={"lora_name": name, "lora_path": path, **more})

    async def unload(self, name: str = "a") -> httpx.Response:
        return await self.client.post(UNLOAD, json={"lora_name": name})

    async def ask(self, model: str = "a", **more: Any) -> httpx.Response:
        return await self.client.post("/v1/completions", json={"model": model, **more})

    async def listed(self) -> dict[str, tuple[int, bool]]:
        models = (await self.client.get("/v1/models")).json()["data"]
        return {m["id"]: (m["num_running"], m["is_leaving"]) for m in models if m.get("parent")}

    async def running(self, model: str = "a") -> asyncio.Task[httpx.Response]:
        self.server.started.clear()
        task = asyncio.create_task(self.ask(model))
        await self.server.started.wait()
        return task

    async def until(self, wanted: dict[str, tuple[int, bool]]) -> None:
        await eventually(self.listed, wanted)


async def eventually(look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    deadline = time.monotonic() + 3
    while (found := await look()) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(server: TinyServer) -> AsyncIterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(server.app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
        uvicorn_server = _Quiet(config)
        task = asyncio.create_task(uvicorn_server.serve([sock]))
        while not uvicorn_server.started:
            await asyncio.sleep(0.001)
        try:
            yield sock.getsockname()[1]
        finally:
            server.go.set()
            server.may_load.set()
            uvicorn_server.should_exit = True
            await task


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv(SECRET, "s3cret")
    monkeypatch.setenv(MAX_ADAPTERS, "2")
    server = TinyServer()
    server.app.add_middleware(Guard)
    headers = {"authorization": "Bearer s3cret"}
    async with serving(server) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(
            base_url=url, headers=headers, verify=False, trust_env=False, timeout=10
        ) as client:
            yield Site(server, client, port)


async def test_every_path_needs_the_secret(site: Site) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}", verify=False, trust_env=False) as stranger:
        for path in ["/health", "/v1/models", "/metrics", "/sleep", "/v1/completions", "/nowhere"]:
            for header in [None, "Bearer wrong", "s3cret", "bearer s3cret", "Bearer s3cre"]:
                reply = await stranger.get(path, headers={"authorization": header} if header else {})
                assert reply.status_code == 401, (path, header)
                assert reply.json()["error"]["code"] == "unauthorized"
    assert (await site.client.get("/health")).status_code == 200


async def test_without_a_secret_nobody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    server = TinyServer()
    server.app.add_middleware(Guard)
    async with serving(server) as port, httpx.AsyncClient(verify=False, trust_env=False) as client:
        assert (
            await client.get(f"http://127.0.0.1:{port}/health", headers={"authorization": "Bearer"})
        ).status_code == 401


async def test_strangers_websockets_are_closed_before_they_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "s3cret")
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append("passed")

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    await Guard(app)({"type": "websocket", "headers": [], "path": "/v1/realtime"}, receive, send)
    await Guard(app)({"type": "websocket", "headers": [(b"authorization", b"Bearer s3cret")]}, receive, send)
    await Guard(app)({"type": "lifespan"}, receive, send)
    assert sent == ["websocket.close", "passed", "passed"]


async def test_bodies_come_through_as_they_were(site: Site) -> None:
    site.server.go.set()
    body = json.dumps({"model": BASE, "prompt": "x" * 300_000}).encode()  # several messages of ASGI
    assert (await site.client.post("/v1/completions", content=body)).json() == {"text": "done"}
    assert site.server.seen == [body]


async def test_what_is_no_request_is_the_servers_business(site: Site) -> None:
    for body in [b"", b"[]", b"{", b'{"model": 3}', b"\xff\xfe", b"[" * 100_000]:
        assert (await site.client.post("/nowhere", content=body)).status_code == 404


async def test_pieces_of_a_stream_are_passed_on_as_they_come(site: Site) -> None:
    async with site.client.stream("POST", "/v1/completions", json={"model": BASE, "stream": True}) as reply:
        pieces = reply.aiter_raw()
        assert await anext(pieces) == b"first "
        site.server.go.set()
        assert await anext(pieces) == b"last"


async def test_loaded_adapters_are_listed_with_their_requests(site: Site) -> None:
    assert (await site.load("a")).status_code == 200
    assert (await site.load("b", "/b")).status_code == 200
    assert await site.listed() == {"a": (0, False), "b": (0, False)}
    first, second = await site.running("a"), await site.running("a")
    await site.until({"a": (2, False), "b": (0, False)})
    site.server.go.set()
    await asyncio.gather(first, second)
    await site.until({"a": (0, False), "b": (0, False)})


async def test_unloading_waits_for_running_requests_and_frees_the_weights(site: Site) -> None:
    await site.load()
    request = await site.running()
    unloading = asyncio.create_task(site.unload())
    await site.until({"a": (1, True)})
    assert site.server.names == []
    assert (await site.ask()).status_code == 404  # no new ones
    assert not unloading.done()
    assert site.server.engine.weights == {1}
    site.server.go.set()
    assert (await request).json() == {"text": "done"}
    assert (await unloading).status_code == 200
    assert site.server.engine.weights == set()
    assert await site.listed() == {}


async def test_an_idle_adapter_goes_at_once_and_an_absent_one_is_404(site: Site) -> None:
    await site.load()
    assert (await site.unload()).status_code == 200
    assert site.server.engine.weights == set()
    reply = await site.unload()
    assert reply.status_code == 404
    assert "'a' is not loaded" in reply.json()["error"]["message"]


async def test_a_client_that_goes_withdraws_its_unloading(site: Site) -> None:
    await site.load()
    request = await site.running()
    with pytest.raises(httpx.ReadTimeout):
        await site.client.post(UNLOAD, json={"lora_name": "a"}, timeout=0.1)
    await site.until({"a": (1, False)})
    site.server.go.set()
    await request
    assert (await site.ask()).status_code == 200
    assert site.server.engine.weights == {1}


async def test_while_another_client_waits_it_still_leaves(site: Site) -> None:
    await site.load()
    request = await site.running()
    other = asyncio.create_task(site.unload())
    with pytest.raises(httpx.ReadTimeout):
        await site.client.post(UNLOAD, json={"lora_name": "a"}, timeout=0.1)
    await site.until({"a": (1, True)})
    site.server.go.set()
    await request
    assert (await other).status_code == 200


async def test_a_load_takes_back_what_is_leaving(site: Site) -> None:
    await site.load()
    request = await site.running()
    unloading = asyncio.create_task(site.unload())
    await site.until({"a": (1, True)})
    assert (
        await site.load(path="/other")
    ).status_code == 400  # the name is another file's; 409 would be a lack of places
    assert (await site.load()).status_code == 200
    reply = await unloading
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "unload_withdrawn")
    await site.until({"a": (1, False)})
    site.server.go.set()
    await request
    assert site.server.engine.weights == {1}  # the same weights, not read again


async def test_a_load_during_the_freeing_waits_and_loads_anew(site: Site) -> None:
    await site.load()
    site.server.engine.may_free.clear()
    unloading = asyncio.create_task(site.unload())
    await site.until({"a": (0, True)})
    await asyncio.sleep(0.02)
    loading = asyncio.create_task(site.load())
    await asyncio.sleep(0.02)
    assert not loading.done()
    site.server.engine.may_free.set()
    assert (await unloading).status_code == 200
    assert (await loading).status_code == 200
    assert site.server.engine.weights == {2}
    assert await site.listed() == {"a": (0, False)}


async def test_what_cannot_be_freed_serves_again(site: Site) -> None:
    await site.load()
    site.server.engine.fails = "the worker is gone"
    reply = await site.unload()
    assert reply.status_code == 500
    assert "could not be freed: the worker is gone" in reply.json()["error"]["message"]
    assert await site.listed() == {"a": (0, False)}


async def test_requests_that_the_engine_still_has_keep_the_weights(site: Site) -> None:
    """The answer of a client that went away ends before its request is aborted."""
    await site.load()
    states = site.server.engine.output_processor.request_states
    states["r1"] = type("State", (), {"lora_name": "a"})()
    unloading = asyncio.create_task(site.unload())
    await asyncio.sleep(0.05)
    assert site.server.engine.weights == {1}
    states.clear()
    assert (await unloading).status_code == 200
    assert site.server.engine.weights == set()


async def test_there_are_no_more_names_than_places(site: Site) -> None:
    await site.load("a")
    await site.load("b", "/b")
    reply = await site.load("c", "/c")
    assert reply.status_code == 409
    assert "all 2 places for adapters are taken" in reply.json()["error"]["message"]
    request = await site.running("a")
    unloading = asyncio.create_task(site.unload("a"))
    await site.until({"a": (1, True), "b": (0, False)})
    assert (await site.load("c", "/c")).status_code == 409  # a leaving one has its place until it is freed
    site.server.go.set()
    await asyncio.gather(request, unloading)
    assert (await site.load("c", "/c")).status_code == 200


async def test_a_loading_one_has_its_place_and_a_failed_one_gives_it_back(site: Site) -> None:
    await site.load("a")
    site.server.may_load.clear()
    bad = asyncio.create_task(site.load("b", "/bad"))
    await asyncio.sleep(0.05)
    assert (await site.load("c", "/c")).status_code == 409
    site.server.may_load.set()
    assert (await bad).status_code == 500
    assert (await site.load("c", "/c")).status_code == 200


async def test_loading_again_is_fine_in_place_and_elsewhere_are_refused(site: Site) -> None:
    await site.load()
    assert (await site.load()).status_code == 200
    assert site.server.engine.weights == {1}
    assert (await site.load(load_inplace=True)).status_code == 400
    assert (await site.client.post("/adapters", json={"name": "x"})).status_code == 400
    assert (await site.client.post("/adapters/x", json={})).status_code == 400
    assert (await site.client.post(LOAD, content=b"[]")).status_code == 400
    assert (await site.client.post(LOAD, json={"lora_name": "x"})).status_code == 400


async def test_all_can_be_forgotten(site: Site) -> None:
    await site.load("a")
    await site.load("b", "/b")
    site.server.engine.weights.add(77)  # one that nobody knows by name
    assert (await site.client.post("/forgegate/forget_adapters")).status_code == 200
    assert site.server.engine.weights == set()
    assert await site.listed() == {}


async def test_counts_never_leak(site: Site) -> None:
    await site.load()
    with pytest.raises(httpx.ReadTimeout):
        await site.client.post("/v1/completions", json={"model": "a"}, timeout=0.1)
    async with site.client.stream("POST", "/v1/completions", json={"model": "a", "stream": True}) as reply:
        await anext(reply.aiter_raw())
        await site.until({"a": (1, False)})
    assert (await site.client.post("/broken", json={"model": "a"})).status_code == 500
    site.server.go.set()
    await asyncio.gather(*(site.ask() for _ in range(20)), *(site.ask("absent") for _ in range(5)))
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer s3cret\r\ncontent-length: 99\r\n\r\n{"
    )
    await writer.drain()
    writer.close()
    await site.until({"a": (0, False)})
    assert (await asyncio.wait_for(site.unload(), 3)).status_code == 200
