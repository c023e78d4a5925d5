"""The adapter routes over a real socket, as the admin client and curl see them; engines are in memory, the ingest child is real."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from backends.adapter.pack import pack
from backends.admin_client import AdminClient, ProofNegative
from backends.errors import AdminError
from gateway.control.adapterapi import AdapterApi
from gateway.control.app import AdminApi, create_app
from tests.gateway.control.fake_adapters import FakeAdapters
from tests.gateway.control.publishing import HOST, Rig, rig

TOKEN = "the-token"
GOOD = {"authorization": f"Bearer {TOKEN}"}
PILOT = HOST.parent / "pilot"


@asynccontextmanager
async def served(parts: Rig, port: int, roots: tuple[str, ...] = ()) -> AsyncIterator[str]:
    core: Any = parts.core
    api = AdapterApi(core, parts.publisher, roots)
    engines: Any = AdminApi(None, None, None, None)  # type: ignore[arg-type] # the other routes are not called
    app = create_app(engines, TOKEN, "0", api)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    )
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path / "home", max_bytes=5_000_000) as made:
        yield made


@pytest.fixture
async def url(parts: Rig, free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "root").mkdir()
    async with served(parts, free_port(), (str(tmp_path / "root"),)) as address:
        yield address


async def in_thread(url: str, call: Callable[[AdminClient], Any]) -> Any:
    """The client blocks, as commands do."""

    def work() -> Any:
        with AdminClient(url, TOKEN) as client:
            return call(client)

    return await asyncio.to_thread(work)


async def test_the_whole_way_by_the_client(url: str, parts: Rig) -> None:
    sent: list[tuple[int, int]] = []
    events: list[dict[str, Any]] = []

    def publish(client: AdminClient) -> dict[str, Any]:
        return client.publish(
            HOST, "support", who="ann", on_event=events.append, on_sent=lambda *pair: sent.append(pair)
        )

    first = await in_thread(url, publish)
    assert sent[-1] == (pack(HOST).num_bytes, pack(HOST).num_bytes)
    assert [event["stage"] for event in events][-3:] == ["candidate", "proof", "alias"]
    second = await in_thread(url, lambda client: client.publish(PILOT, "support", is_candidate_only=True))
    assert (first["alias"], second["alias"]) == ("support", None)

    v1, v2 = first["version"], second["version"]
    change = await in_thread(url, lambda client: client.point("support", {v1: 90, v2: 10}, "bob"))
    assert (change["kind"], change["who"]) == ("split", "bob from 127.0.0.1")
    assert change["shares"] == [{"adapter": v1, "weight": 90}, {"adapter": v2, "weight": 10}]
    await in_thread(url, lambda client: client.rollback("support", "bob"))
    found = await in_thread(url, lambda client: client.adapter("support"))
    assert [change["kind"] for change in found["history"]] == ["rollback", "split", "flip"]
    assert found["history"][-1]["who"] == "ann from 127.0.0.1"
    assert {version["name"] for version in found["versions"]} == {v1, v2}
    assert found["versions"][0]["engines"][0] == {
        "engine": "demo-0",
        "is_resident": True,
        "proof": "proven",
        "detail": "",
    }

    (alias,) = await in_thread(url, lambda client: client.aliases())
    assert alias["shares"] == [{"adapter": v1, "weight": 1}]
    digits = v2.partition("@")[2]
    assert (await in_thread(url, lambda client: client.change_adapter(digits[:6], "pin"))) == {"name": v2}
    assert [v["is_pinned"] for v in await in_thread(url, lambda client: client.adapters())] == [False, True]
    await in_thread(url, lambda client: client.change_adapter(v2, "unpin"))
    await in_thread(url, lambda client: client.change_adapter(v2, "unload"))
    assert (await in_thread(url, lambda client: client.remove_adapter(v2))) == {"name": v2}
    with pytest.raises(AdminError, match="served by an alias") as caught:
        await in_thread(url, lambda client: client.remove_adapter(v1))
    assert caught.value.exit_code == 2
    assert (await in_thread(url, lambda client: client.remove_alias("support")))["kind"] == "drop"


async def test_wrong_names_list_what_there_is(url: str) -> None:
    with pytest.raises(AdminError, match="no version or alias 'suport': nothing was published yet"):
        await in_thread(url, lambda client: client.adapter("suport"))
    version = (await in_thread(url, lambda client: client.publish(HOST, "support")))["version"]
    for call, words in (
        (lambda c: c.adapter("suport"), f"did you mean 'support'? there are: support, {version}"),
        (lambda c: c.rollback("suport"), "no alias 'suport'; did you mean 'support'? there are: support"),
        (lambda c: c.change_adapter("support@ffff", "pin"), f"no version 'support@ffff'; there are: {version}"),
        (lambda c: c.point("support", {"nobody": 1}), f"no version 'nobody'; there are: {version}"),
        (lambda c: c.publish(HOST, "support", model="demi"), "no model 'demi'; did you mean 'demo'?"),
        (lambda c: c.point("a b", {version: 1}), "name 'a b': letters, digits"),
        (lambda c: c.point("support", {version: 0}), "must be 1 to 1000000"),
        (lambda c: c.point("support", {version: 1}, "x\ny"), "who: 128 printable characters"),
    ):
        with pytest.raises(AdminError) as caught:
            await in_thread(url, call)
        assert words in str(caught.value)
        assert caught.value.exit_code == 2


async def test_refusals_of_uploads_reach_a_client_that_still_sends(url: str, parts: Rig, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "adapter_config.json").write_text("{}")
    with (large / "adapter_model.safetensors").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(AdminError, match="max_upload_bytes") as caught:
        await in_thread(url, lambda client: client.publish(large, "support"))
    assert caught.value.status == 413
    with pytest.raises(AdminError, match="no model 'x'"):
        await in_thread(url, lambda client: client.publish(large, "support", model="x"))

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 1_000_000

    async with httpx.AsyncClient() as client:  # no length announced
        reply = await client.post(f"{url}/admin/v1/adapters?name=a", content=endless(), headers=GOOD, timeout=20)
    assert reply.status_code == 413
    assert parts.left_behind() == []


async def test_a_client_that_leaves_in_its_upload_leaves_nothing(url: str, parts: Rig) -> None:
    port = int(url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /admin/v1/adapters?name=a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 100000\r\n\r\n"
    writer.write(head.encode() + b"x" * 50_000)
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()
    await writer.wait_closed()
    for _ in range(100):
        if not parts.left_behind():
            break
        await asyncio.sleep(0.05)
    assert parts.left_behind() == []
    assert parts.core.calls == []


async def test_a_client_that_leaves_after_its_upload_is_served_all_the_same(url: str, parts: Rig) -> None:
    async with httpx.AsyncClient(headers=GOOD) as client:
        content = b"".join(pack(HOST).chunks())
        async with client.stream("POST", f"{url}/admin/v1/adapters?name=support", content=content, timeout=20) as reply:
            assert reply.headers["content-type"] == "application/x-ndjson"
            await anext(reply.aiter_lines())
    for _ in range(200):
        if parts.core.aliases():
            break
        await asyncio.sleep(0.05)
    assert [alias.name for alias in parts.core.aliases()] == ["support"]


async def test_a_refused_adapter_is_the_last_line(url: str, parts: Rig, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(AdminError, match="the adapter is refused:\n") as caught:
        await in_thread(url, lambda client: client.publish(tmp_path, "support"))
    assert (caught.value.status, caught.value.exit_code) == (400, 2)
    async with httpx.AsyncClient(headers=GOOD) as client:
        content = b"".join(pack(tmp_path).chunks())
        reply = await client.post(f"{url}/admin/v1/adapters?name=support", content=content, timeout=20)
    last = json.loads(reply.text.splitlines()[-1])
    assert (last["event"], last["status"], last["error"]["code"]) == ("error", 400, "adapter_refused")
    assert {"rule", "tensor", "message", "fix"} == set(last["problems"][0])
    assert parts.left_behind() == []


async def test_a_failed_proof_is_a_negative_verdict(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with rig(tmp_path / "home", FakeAdapters("failed")) as parts, served(parts, free_port()) as url:
        with pytest.raises(ProofNegative, match="stays a candidate") as caught:
            await in_thread(url, lambda client: client.publish(HOST, "support"))
        assert caught.value.exit_code == 1


# vLLM's calls ---------------------------------------------------------------------------------------------------------


async def test_load_and_unload_as_vllm_has_them(url: str, parts: Rig, tmp_path: Path) -> None:
    allowed = tmp_path / "root"
    folder = allowed / "a" / "host"
    folder.parent.mkdir()
    os.symlink(HOST, tmp_path / "outside")
    (allowed / "link").symlink_to(HOST)
    shutil.copytree(HOST, folder)
    async with httpx.AsyncClient(headers=GOOD, timeout=20) as client:

        async def call(action: str, **body: Any) -> httpx.Response:
            return await client.post(f"{url}/admin/v1/{action}_lora_adapter", json=body)

        for path, status, words in (
            (str(tmp_path / "outside"), 403, "does not lie under adapters.roots"),
            (str(allowed / "link"), 403, "does not lie under"),
            (str(allowed / ".." / "outside"), 403, "does not lie under"),
            ("/etc/passwd", 403, "does not lie under"),
            (str(allowed / "none"), 400, "no such folder"),
            ("relative", 400, "is not absolute"),
            ("/a\0b", 403, "does not lie under"),
        ):
            reply = await call("load", lora_name="support", lora_path=path)
            assert (reply.status_code, words in reply.json()["error"]["message"]) == (status, True), path
        reply = await call("load", lora_name="support", lora_path=str(folder), load_inplace=True)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "load_inplace")
        assert "never reused for other weights" in reply.json()["error"]["message"]
        reply = await call("load", lora_name="support", lora_path=str(folder), lora_typo=1)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "lora_typo")

        reply = await call("load", lora_name="support", lora_path=str(folder), load_inplace=False)
        assert (reply.status_code, "added successfully" in reply.text) == (200, True)
        assert folder.is_dir()
        (version,) = parts.core.versions()
        assert (version.state, version.who) == ("live", "127.0.0.1")
        assert (await call("unload", lora_name="support", lora_int_id=None)).status_code == 200
        assert parts.core.calls[-2:] == ["drop support", f"unload {version.name}"]
        assert (await call("unload", lora_name="support")).status_code == 404
        assert (await call("unload", lora_name=version.name)).status_code == 200


async def test_vllms_unload_goes_all_the_way_or_none(parts: Rig, url: str, tmp_path: Path) -> None:
    core: Any = parts.core
    async with httpx.AsyncClient(timeout=30, headers=GOOD) as client:

        async def unload(**headers: str) -> httpx.Response:
            body = {"lora_name": "support"}
            return await client.post(f"{url}/admin/v1/unload_lora_adapter", json=body, headers=headers)

        folder = Path(shutil.copytree(HOST, tmp_path / "root" / "host"))
        body = {"lora_name": "support", "lora_path": str(folder)}
        assert (await client.post(f"{url}/admin/v1/load_lora_adapter", json=body)).status_code == 200
        (version,) = (state.name for state in core.versions())
        await core.pin(version)
        refused = await unload()
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            409, f"{version} is pinned: unpin it first; the alias support stays",
        )  # fmt: skip
        assert [alias.name for alias in core.aliases()] == ["support"]
        await core.unpin(version)
        core.busy.add(version)
        done = await unload(**{"x-forgegate-client": "10.0.0.7"})
        assert (done.status_code, core.aliases()) == (200, ()), "what is still used goes with its last request"
        assert core.history("support")[0].who == "10.0.0.7 from 127.0.0.1"


async def test_without_roots_no_path_is_taken(parts: Rig, free_port: Callable[[], int]) -> None:
    async with served(parts, free_port()) as url, httpx.AsyncClient(headers=GOOD) as client:
        body = {"lora_name": "a", "lora_path": str(HOST)}
        reply = await client.post(f"{url}/admin/v1/load_lora_adapter", json=body)
    assert (reply.status_code, "adapters.roots" in reply.json()["error"]["message"]) == (403, True)


async def test_every_route_asks_for_the_token_and_openapi_tells_of_the_upload(url: str) -> None:
    async with httpx.AsyncClient() as client:
        spec = (await client.get(f"{url}/openapi.json")).json()
        for path, methods in spec["paths"].items():
            for method in methods:
                reply = await client.request(
                    method, url + path.replace("{name}", "x").replace("{engine_id}", "x"), json={}
                )
                assert reply.status_code == 401, (method, path)
    upload = spec["paths"]["/admin/v1/adapters"]["post"]
    assert "application/x-tar" in upload["requestBody"]["content"]
    assert {p["name"] for p in upload["parameters"]} == {"name", "model", "candidate_only", "who", "force"}
