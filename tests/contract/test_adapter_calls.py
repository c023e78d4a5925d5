"""What every engine that serves adapters answers to `AdapterCalls`: the fake and llama.cpp, by the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.adapter.calls import LoraCalls
from backends.base import Address, Call, Fetch
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


@pytest.fixture(params=["fake", pytest.param("llamacpp", marks=pytest.mark.engine)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Rig]:
    if request.param == "fake":
        files = {name: tmp_path / f"{name}.gguf" for name in ("host", "pilot", "tiger")}
        for file in files.values():
            file.touch()
        engine = FakeAdapterEngine(NUM_SLOTS)
        yield Rig(engine.call, engine.fetch, files)
        return
    gguf: Path = request.getfixturevalue("demo_gguf")
    files = request.getfixturevalue("adapter_ggufs")
    port, log = free_port(), tmp_path / "engine.log"
    flags = ("--n-ctx", "2048", "--n-seq-max", "4", "--n-threads", "1", "--max-adapters", str(NUM_SLOTS))
    with engine_process(gguf, port, log, *flags):
        prober, address = Prober(), Address("127.0.0.1", port)

        async def fetch(path: str) -> object:
            return await prober.get(address, path, SECRET, 10)

        try:
            yield Rig(prober.call(address, SECRET), fetch, files)  # type: ignore[arg-type]
        finally:
            await prober.close()


async def test_the_life_of_adapters(rig: Rig, tmp_path: Path) -> None:
    calls, files = CALLS, rig.files
    assert await calls.resident(rig.fetch) == {}
    await calls.load(rig.call, "a@1", files["host"])
    await calls.load(rig.call, "a@1", files["host"])  # what is loaded already is fine
    await calls.load(rig.call, "b@1", files["pilot"])
    assert await calls.resident(rig.fetch) == {"a@1": 0, "b@1": 0}
    with pytest.raises(NoSlot, match="all 2 places"):
        await calls.load(rig.call, "c@1", files["tiger"])
    with pytest.raises(AdapterRefused, match="loaded from"):
        await calls.load(rig.call, "a@1", files["tiger"])
    await calls.unload(rig.call, "a@1", 10)
    await calls.unload(rig.call, "a@1", 10)  # what is not there is fine
    with pytest.raises(AdapterRefused, match=r"nowhere\.gguf"):
        await calls.load(rig.call, "c@1", tmp_path / "nowhere.gguf")
    await calls.load(rig.call, "c@1", files["tiger"])
    assert await calls.resident(rig.fetch) == {"b@1": 0, "c@1": 0}
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


async def test_an_unloading_that_takes_too_long_is_told() -> None:
    engine = FakeAdapterEngine()
    engine.idle.clear()
    with pytest.raises(AdapterRefused, match=r"still used by requests after 0\.05 s"):
        await LoraCalls("").unload(engine.call, "a", 0.05)


async def test_an_engine_that_is_gone_is_another_matter() -> None:
    async def call(path: str, body: bytes, timeout_s: float) -> object:
        await asyncio.sleep(0)
        raise ProbeFailed("refused")

    with pytest.raises(ProbeFailed):
        await LoraCalls("").unload(call, "a", 1)  # type: ignore[arg-type]
