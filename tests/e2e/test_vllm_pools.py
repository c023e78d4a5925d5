"""One model, two kinds of engine: vLLM on the CPU and llama.cpp serve the same adapters; and what clients see when vLLM is killed.

The tests share one gateway, because every start of vLLM takes half a minute, and run in the order in which they stand.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from backends.adapter.manifest import read_manifest
from backends.adapter.store import Store
from backends.demo.signatures import ADAPTERS_DIR
from backends.errors import AdminError
from tests.demo_adapters import stored_version
from tests.e2e.vllm_stage import (
    ENGINES,
    LLAMACPP,
    READY_S,
    VLLM,
    MixedGateway,
    Seen,
    attach_reference,
    damaged_copy,
    stream,
)
from tests.processes import eventually, is_alive
from tests.vllm_environment import Starts

# Not marked e2e: what a test of these starts belongs to the gateway, which looks after it until the last one is over.
pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(300)]

NUM_STREAMS = 6
NUM_TOKENS = 1500
"""Of a stream: it goes on for seconds, while control sees once a second how busy its engine is."""
SOON_S = 5.0
HELD = {VLLM: (True, "proven"), LLAMACPP: (True, "proven")}


def everywhere(version: str, adapter: str) -> dict[str, set[tuple[str, str | None]]]:
    """Answers of both engines, all by this version and with its signature."""
    return {engine: {(version, adapter)} for engine in ENGINES}


@pytest.fixture(scope="module")
def served(mixed_gateway: MixedGateway) -> MixedGateway:
    return mixed_gateway


@pytest.fixture(scope="module")
def versions(served: MixedGateway) -> dict[str, str]:
    """Published as `support`, one after the other."""
    return {
        name: str(served.publish(name, "support", is_candidate_only=False)["version"]) for name in ("host", "pilot")
    }


@pytest.fixture
def host(served: MixedGateway, versions: dict[str, str]) -> str:
    """Its version, which `support` serves."""
    served.admin_api.point("support", {versions["host"]: 1})
    return versions["host"]


def test_both_engines_serve_the_model(served: MixedGateway) -> None:
    told = {engine["id"]: engine for engine in served.admin("GET", "/admin/v1/engines")["data"]}
    assert {engine: told[engine]["state"] for engine in ENGINES} == dict.fromkeys(ENGINES, "ready")
    assert set(served.answers("demo")) == ENGINES
    listed = httpx.get(f"{served.url}/v1/models", timeout=30, verify=False).json()["data"]
    assert [model["id"] for model in listed] == ["demo"]
    assert {"chat", "completions", "tokenize", "responses", "messages"} <= set(listed[0]["capabilities"])
    assert "literal_special_text" not in listed[0]["capabilities"]  # not on all of its engines


def test_published_once_it_is_proven_on_both_and_flipped_together(
    served: MixedGateway, versions: dict[str, str]
) -> None:
    assert {name: served.proofs(version) for name, version in versions.items()} == {"host": HELD, "pilot": HELD}
    for name in ("host", "pilot", "host"):
        served.admin_api.point("support", {versions[name]: 1})
        # At once: from the answer to the flip on, no engine decides from the old state.
        assert served.answers("support") == everywhere(versions[name], name)


def test_rolled_back_together(served: MixedGateway, versions: dict[str, str], host: str) -> None:
    served.admin_api.point("support", {versions["pilot"]: 1})
    served.admin_api.rollback("support")
    assert served.answers("support") == everywhere(host, "host")


def test_what_is_broken_is_quarantined_on_both(served: MixedGateway, host: str, tmp_path: Path) -> None:
    whole, damaged = served.publish("tiger", "whole"), damaged_copy(ADAPTERS_DIR / "tiger", tmp_path / "damaged")
    store = Store(served.home / "adapters")
    made = stored_version(damaged, store.root, read_manifest(store.version(whole["digest"])).base.template_digest)
    attach_reference(store, made.name, of=whole["digest"])
    with pytest.raises(AdminError, match="stays a candidate") as caught:
        served.admin_api.publish(damaged, "broken")
    assert all(engine in str(caught.value) for engine in ENGINES)
    version = f"broken@{made.name[:12]}"
    assert served.proofs(version) == dict.fromkeys(ENGINES, (False, "failed"))
    for _ in range(4):
        reply = served.ask(version)
        assert reply.status_code == 503, reply.text
        assert version in reply.json()["error"]["message"]
    assert served.ask("broken").status_code == 404
    assert served.answers("support") == everywhere(host, "host")
    for name in (whole["version"], version):
        served.admin_api.remove_adapter(name)


async def streams_over(served: MixedGateway, victim: psutil.Process) -> list[Seen]:
    """What the clients of streams see during which the victim is killed, once some of it is streamed on both engines."""
    async with httpx.AsyncClient(timeout=60, verify=False) as client:
        tasks = [asyncio.create_task(stream(client, served.url, NUM_TOKENS, "support")) for _ in range(NUM_STREAMS)]

        def running(engine: str) -> int:
            load = served.engine(engine)["load"]
            return int(load["num_running"]) if load else 0

        async with asyncio.timeout(30):
            while not (running(VLLM) and running(LLAMACPP)):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        victim.send_signal(signal.SIGKILL)
        return list(await asyncio.gather(*tasks))


def is_ready_anew(served: MixedGateway, before: int) -> bool:
    """Not as it was before the kill, which control notices a moment later."""
    engine = served.engine(VLLM)
    return engine["state"] == "ready" and engine["pid"] != before


@pytest.mark.parametrize("victim", ["api_server", "engine_core"])
async def test_vllm_is_killed_under_streams(served: MixedGateway, host: str, vllm_starts: Starts, victim: str) -> None:
    process, core, api_server = getattr(served, victim)(), served.engine_core(), served.api_server()
    begin = time.monotonic()
    seen = await streams_over(served, process)
    vllm_starts.note(f"{victim} killed")
    endings = {(one.engine, one.ending) for one in seen if one.status == 200}
    assert endings == {(VLLM, "error"), (LLAMACPP, "done")}
    assert all(one.status == 200 for one in seen), [one.events for one in seen if one.status != 200]
    # Nothing of the old launch is left, and requests go to the other engine meanwhile.
    eventually(lambda: not is_alive(core.pid) and not is_alive(api_server.pid), SOON_S)
    assert served.answers("support", 3) == {LLAMACPP: {(host, "host")}}
    # It comes back, with the adapters that it held proven anew.
    eventually(lambda: is_ready_anew(served, api_server.pid), READY_S)
    assert served.proofs(host) == HELD
    assert served.answers("support") == everywhere(host, "host")
    assert time.monotonic() - begin < 120


async def test_control_is_killed_under_streams(served: MixedGateway, host: str) -> None:
    """The last one: with control everything that it started ends, and nothing looks like an answer that is whole."""
    tree = [process.pid for process in served.tree()]
    assert len(tree) >= 5  # the worker, the guardian, llama.cpp, vLLM's API server and its core
    seen = await streams_over(served, psutil.Process(served.process.pid))
    for one in seen:
        assert not one.is_done
        assert one.failure or one.ending == "error"
    eventually(lambda: not any(map(is_alive, tree)), SOON_S)
