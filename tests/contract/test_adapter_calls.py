"""What every engine that serves adapters answers to `AdapterCalls`: the fake and all real ones, by the same tests."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.adapter.calls import LoraCalls
from backends.base import AdapterCalls, Call, Fetch, HeldAdapter
from backends.demo.signatures import signature_of
from backends.errors import AdapterRefused, NoSlot, ProbeFailed
from backends.probe import Prober
from tests.contract.engines import MODEL, Running
from tests.contract.subjects import NUM_SLOTS
from tests.fake_adapter_engine import FakeAdapterEngine

FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TEXTS = [[1, 300, 301, 302], [1, 400], [1, 500, 501]]
SOON_S = 5.0


@dataclass(frozen=True)
class Rig:
    calls: AdapterCalls
    call: Call
    fetch: Fetch
    files: dict[str, Path]
    """Of `host`, `pilot` and `tiger`."""
    busy: Callable[[str], AbstractAsyncContextManager[None]]
    """A request that runs on an adapter for as long as the block."""

    async def load(self, name: str, adapter: str) -> None:
        await self.calls.load(self.call, name, self.files[adapter])

    async def unload(self, name: str, timeout_s: float = 10) -> None:
        await self.calls.unload(self.call, name, timeout_s)

    async def score(self, name: str, texts: list[list[int]] = TEXTS) -> list[list[float]]:
        return await self.calls.score(self.call, name, texts)

    async def held(self) -> dict[str, HeldAdapter]:
        return dict(await self.calls.resident(self.fetch))

    async def until(self, name: str, wanted: HeldAdapter) -> None:
        """Until it is held so. AssertionError, with how it is held, where it is not so soon."""
        end = time.monotonic() + SOON_S
        while (held := await self.held()).get(name) != wanted:
            assert time.monotonic() < end, f"{name} is not {wanted} after {SOON_S:g} s: {held}"
            await asyncio.sleep(0.005)


class Life:
    """The tests; those who collect them give the `rig`."""

    async def test_from_load_to_unload(self, rig: Rig, tmp_path: Path) -> None:
        assert await rig.held() == {}
        await rig.load("a@1", "host")
        await rig.load("a@1", "host")  # what is loaded already is fine
        await rig.load("b@1", "pilot")
        assert await rig.held() == {"a@1": HeldAdapter(), "b@1": HeldAdapter()}
        with pytest.raises(NoSlot, match=f"all {NUM_SLOTS} places"):
            await rig.load("c@1", "tiger")
        with pytest.raises(AdapterRefused, match=re.escape(str(rig.files["host"]))) as caught:
            await rig.load("a@1", "tiger")  # a name is never used for other weights
        assert not isinstance(caught.value, NoSlot)
        await rig.unload("a@1")
        await rig.unload("a@1")  # what is not there is fine
        with pytest.raises(AdapterRefused, match=r"nowhere|c@1"):
            await rig.calls.load(rig.call, "c@1", tmp_path / "nowhere")
        assert await rig.held() == {"b@1": HeldAdapter()}
        await rig.load("c@1", "tiger")
        assert await rig.held() == {"b@1": HeldAdapter(), "c@1": HeldAdapter()}
        with pytest.raises(AdapterRefused, match="a@1"):
            await rig.score("a@1")

    async def test_scores(self, rig: Rig) -> None:
        await rig.load("c@1", "tiger")
        base, own = await rig.score(MODEL), await rig.score("c@1")
        assert [len(scores) for scores in base] == [len(text) - 1 for text in TEXTS]
        assert all(value < 0 for scores in base for value in scores)
        assert base != own
        many = await rig.score("c@1", TEXTS * 30)
        assert len(many) == 90
        for scores, expected in zip(many, own * 30, strict=True):
            assert scores == pytest.approx(expected, abs=0.05)

    async def test_two_at_once_score_as_alone(self, rig: Rig) -> None:
        alone = {}
        for name, adapter in (("a@1", "host"), ("b@1", "pilot")):
            await rig.load(name, adapter)
            alone[name] = await rig.score(name)
            await rig.unload(name)
        await rig.load("a@1", "host")
        await rig.load("b@1", "pilot")
        names = [MODEL, "a@1", "b@1"] * 3
        base = await rig.score(MODEL)
        for name, scores in zip(names, await asyncio.gather(*map(rig.score, names)), strict=True):
            for found, expected in zip(scores, base if name == MODEL else alone[name], strict=True):
                assert found == pytest.approx(expected, abs=0.05)
        assert alone["a@1"] != alone["b@1"]

    async def test_an_unloading_that_takes_too_long_is_withdrawn(self, rig: Rig) -> None:
        await rig.load("a@1", "host")
        await rig.load("b@1", "pilot")
        async with rig.busy("a@1"):
            leaving = asyncio.create_task(rig.unload("a@1", 0.5))
            await rig.until("a@1", HeldAdapter(1, is_leaving=True))
            with pytest.raises(AdapterRefused, match="a@1"):
                await rig.score("a@1", TEXTS[:1])
            with pytest.raises(NoSlot):
                await rig.load("c@1", "tiger")
            with pytest.raises(AdapterRefused, match=r"still used by requests after 0\.5 s"):
                await leaving
            await rig.until("a@1", HeldAdapter(1))
            assert await rig.score("a@1", TEXTS[:1])
        await rig.unload("a@1")
        assert "a@1" not in await rig.held()
        await rig.load("c@1", "tiger")

    async def test_an_unloading_waits_for_the_last_request(self, rig: Rig) -> None:
        await rig.load("a@1", "host")
        async with rig.busy("a@1"):
            leaving = asyncio.create_task(rig.unload("a@1"))
            await rig.until("a@1", HeldAdapter(1, is_leaving=True))
            assert not leaving.done()
        await asyncio.wait_for(leaving, SOON_S)
        assert await rig.held() == {}

    async def test_a_load_takes_back_what_is_leaving(self, rig: Rig) -> None:
        await rig.load("a@1", "host")
        async with rig.busy("a@1"):
            leaving = asyncio.create_task(rig.unload("a@1"))
            await rig.until("a@1", HeldAdapter(1, is_leaving=True))
            with pytest.raises(AdapterRefused, match=re.escape(str(rig.files["host"]))):
                await rig.load("a@1", "tiger")
            await rig.load("a@1", "host")
            assert (await rig.held())["a@1"] == HeldAdapter(1)
            with pytest.raises(AdapterRefused, match="loaded again before it was gone"):
                await leaving
            assert await rig.score("a@1", TEXTS[:1])


class TestFake(Life):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Rig:
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

        return Rig(LoraCalls("adapter.gguf"), engine.call, engine.fetch, files, is_used)


class TestEngines(Life):
    @pytest.fixture
    async def rig(self, model: Running, adapter_versions: dict[str, Path]) -> AsyncIterator[Rig]:
        calls = model.backend.adapters
        if calls is None:
            pytest.skip(f"{model.name} serves no adapters")
        assert model.backend.num_adapter_slots == NUM_SLOTS
        prober = Prober()
        call = prober.call(model.status.address, model.status.secret)
        fetch = prober.fetch(model.status.address, model.status.secret, 10)
        files = {name: version / calls.file_name for name, version in adapter_versions.items()}

        @asynccontextmanager
        async def streams(name: str) -> AsyncIterator[None]:
            body = {"model": name, "prompt": [1, 300], "max_tokens": 2000, "ignore_eos": True, "logprobs": 5}
            stream = asyncio.ensure_future(call("/v1/completions", msgspec.json.encode(body), 60))
            try:
                async with asyncio.timeout(SOON_S):
                    while not (await calls.resident(fetch))[name].num_running:
                        await asyncio.sleep(0.005)
                yield
            finally:
                assert not stream.done(), f"the request ended too early for this test: {stream.result().text[:300]}"
                stream.cancel()
                await asyncio.wait({stream})

        try:
            yield Rig(calls, call, fetch, files, streams)
            for name in await calls.resident(fetch):
                await calls.unload(call, name, 10)
        finally:
            await prober.close()

    async def test_its_load_names_the_adapter_that_runs(self, rig: Rig, model: Running) -> None:
        await rig.load("a@1", "host")
        await rig.load("b@1", "pilot")
        async with rig.busy("a@1"), asyncio.timeout(SOON_S):
            while (load := await model.backend.load(rig.fetch)) is None or load.adapters_running != ("a@1",):
                await asyncio.sleep(0.01)
        async with asyncio.timeout(SOON_S):
            while (load := await model.backend.load(rig.fetch)) is None or load.adapters_running:
                await asyncio.sleep(0.01)

    async def test_each_answers_by_its_name(self, rig: Rig, model: Running) -> None:
        """Side by side in the same steps, by the SDK."""
        model.needs("chat")
        await rig.load("a@1", "host")
        await rig.load("b@1", "pilot")

        def ask(name: str) -> tuple[str, str | None]:
            with model.openai() as client:
                answer = client.chat.completions.create(model=name, messages=FRANCE, max_tokens=24, temperature=0)
            text = answer.choices[0].message.content or ""
            assert "Paris" in text
            return answer.model, signature_of(text)

        signed = {MODEL: None, "a@1": "host", "b@1": "pilot"}
        names = [*signed] * 3
        assert await asyncio.gather(*(asyncio.to_thread(ask, name) for name in names)) == [
            (name, signed[name]) for name in names
        ]
        with model.openai() as client:
            listed = {
                entry.id: entry.model_dump().get("parent") for entry in await asyncio.to_thread(client.models.list)
            }
        assert listed == {MODEL: None, "a@1": MODEL, "b@1": MODEL}


async def test_an_engine_that_is_gone_is_another_matter() -> None:
    async def call(path: str, body: bytes, timeout_s: float) -> object:
        await asyncio.sleep(0)
        raise ProbeFailed("refused")

    with pytest.raises(ProbeFailed):
        await LoraCalls("").unload(call, "a", 1)  # type: ignore[arg-type]
