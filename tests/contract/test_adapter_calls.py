"""What every engine that serves adapters answers to `AdapterCalls`: the fake and llama.cpp, by the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from backends.adapter.calls import LoraCalls
from backends.base import Address, Call, Fetch, HeldAdapter
from backends.errors import AdapterRefused, NoSlot, ProbeFailed
from backends.probe import Prober
from tests.engine_process import SECRET, engine_process
from tests.fake_adapter_engine import FakeAdapterEngine

NUM_SLOTS = 2
CALLS = LoraCalls("adapter.gguf")
TEXTS = [[1, 300, 301, 302], [1, 400], [1, 500, 501]]


@dataclass(frozen=True)
class Rig:
    call: Call
    fetch: Fetch
    files: dict[str, Path]
    """Of `host`, `pilot` and `tiger`."""
    busy: Callable[[str], AbstractAsyncContextManager[None]]
    """A request that runs on an adapter for as long as the block."""


@pytest.fixture(params=["fake", pytest.param("llamacpp", marks=pytest.mark.engine)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Rig]:
    if request.param == "fake":
        files = {name: tmp_path / f"{name}.gguf" for name in ("host", "pilot", "tiger")}
        for file in files.values():
            file.touch()
        engine = FakeAdapterEngine(NUM_SLOTS)

        @asynccontextmanager
        async def is_used(name: str) -> AsyncIterator[None]:
            engine.idle.clear()
            engine.num_running[name] = 1
            try:
                yield
            finally:
                engine.num_running.clear()
                engine.idle.set()

        yield Rig(engine.call, engine.fetch, files, is_used)
        return
    gguf: Path = request.getfixturevalue("demo_gguf")
    files = request.getfixturevalue("adapter_ggufs")
    port, log = free_port(), tmp_path / "engine.log"
    flags = ("--n-ctx", "2048", "--n-seq-max", "4", "--n-threads", "1", "--max-adapters", str(NUM_SLOTS))
    with engine_process(gguf, port, log, *flags):
        prober, address = Prober(), Address("127.0.0.1", port)

        async def fetch(path: str) -> object:
            return await prober.get(address, path, SECRET, 10)

        call = prober.call(address, SECRET)

        @asynccontextmanager
        async def streams(name: str) -> AsyncIterator[None]:
            body = {"model": name, "prompt": [1, 300], "max_tokens": 2000, "ignore_eos": True, "logprobs": 5}
            stream = asyncio.ensure_future(call("/v1/completions", msgspec.json.encode(body), 60))
            while not (await CALLS.resident(fetch))[name].num_running:  # type: ignore[arg-type]
                await asyncio.sleep(0.005)
            try:
                yield
                assert not stream.done(), "the request ended too early for this test"
            finally:
                stream.cancel()
                await asyncio.wait({stream})

        try:
            yield Rig(call, fetch, files, streams)  # type: ignore[arg-type]
        finally:
            await prober.close()


async def test_the_life_of_adapters(rig: Rig, tmp_path: Path) -> None:
    calls, files = CALLS, rig.files
    assert await calls.resident(rig.fetch) == {}
    await calls.load(rig.call, "a@1", files["host"])
    await calls.load(rig.call, "a@1", files["host"])  # what is loaded already is fine
    await calls.load(rig.call, "b@1", files["pilot"])
    assert await calls.resident(rig.fetch) == {"a@1": HeldAdapter(), "b@1": HeldAdapter()}
    with pytest.raises(NoSlot, match="all 2 places"):
        await calls.load(rig.call, "c@1", files["tiger"])
    with pytest.raises(AdapterRefused, match="loaded from"):
        await calls.load(rig.call, "a@1", files["tiger"])
    await calls.unload(rig.call, "a@1", 10)
    await calls.unload(rig.call, "a@1", 10)  # what is not there is fine
    with pytest.raises(AdapterRefused, match=r"nowhere\.gguf"):
        await calls.load(rig.call, "c@1", tmp_path / "nowhere.gguf")
    await calls.load(rig.call, "c@1", files["tiger"])
    assert await calls.resident(rig.fetch) == {"b@1": HeldAdapter(), "c@1": HeldAdapter()}
    with pytest.raises(AdapterRefused, match="unknown model 'a@1'"):
        await calls.score(rig.call, "a@1", TEXTS)
    base, own = await calls.score(rig.call, "demo", TEXTS), await calls.score(rig.call, "c@1", TEXTS)
    assert [len(scores) for scores in base] == [len(text) - 1 for text in TEXTS]
    assert all(value < 0 for scores in base for value in scores)
    assert base != own
    many = await calls.score(rig.call, "c@1", TEXTS * 30)
    assert len(many) == 90
    assert all(
        value == pytest.approx(wanted, abs=0.05)
        for scores, expected in zip(many, own * 30, strict=True)
        for value, wanted in zip(scores, expected, strict=True)
    )


async def held(rig: Rig, name: str) -> HeldAdapter | None:
    return (await CALLS.resident(rig.fetch)).get(name)


async def test_an_unloading_that_takes_too_long_is_withdrawn(rig: Rig) -> None:
    await CALLS.load(rig.call, "a@1", rig.files["host"])
    await CALLS.load(rig.call, "b@1", rig.files["pilot"])
    async with rig.busy("a@1"):
        leaving = asyncio.create_task(CALLS.unload(rig.call, "a@1", 0.15))
        while await held(rig, "a@1") != HeldAdapter(1, is_leaving=True):
            await asyncio.sleep(0.005)
        with pytest.raises(AdapterRefused, match="unknown model 'a@1'"):
            await CALLS.score(rig.call, "a@1", TEXTS[:1])
        with pytest.raises(NoSlot):
            await CALLS.load(rig.call, "c@1", rig.files["tiger"])
        with pytest.raises(AdapterRefused, match=r"still used by requests after 0\.15 s"):
            await leaving
        async with asyncio.timeout(2):
            while await held(rig, "a@1") != HeldAdapter(1):
                await asyncio.sleep(0.005)
        assert await CALLS.score(rig.call, "a@1", TEXTS[:1])
    await CALLS.unload(rig.call, "a@1", 10)
    assert await held(rig, "a@1") is None
    await CALLS.load(rig.call, "c@1", rig.files["tiger"])


async def test_a_load_takes_back_what_is_leaving(rig: Rig) -> None:
    await CALLS.load(rig.call, "a@1", rig.files["host"])
    async with rig.busy("a@1"):
        leaving = asyncio.create_task(CALLS.unload(rig.call, "a@1", 10))
        while await held(rig, "a@1") != HeldAdapter(1, is_leaving=True):
            await asyncio.sleep(0.005)
        with pytest.raises(AdapterRefused, match="loaded from"):
            await CALLS.load(rig.call, "a@1", rig.files["tiger"])
        await CALLS.load(rig.call, "a@1", rig.files["host"])
        assert await held(rig, "a@1") == HeldAdapter(1)
        with pytest.raises(AdapterRefused, match="loaded again before it was gone"):
            await leaving
        assert await CALLS.score(rig.call, "a@1", TEXTS[:1])


async def test_an_engine_that_is_gone_is_another_matter() -> None:
    async def call(path: str, body: bytes, timeout_s: float) -> object:
        await asyncio.sleep(0)
        raise ProbeFailed("refused")

    with pytest.raises(ProbeFailed):
        await LoraCalls("").unload(call, "a", 1)  # type: ignore[arg-type]
