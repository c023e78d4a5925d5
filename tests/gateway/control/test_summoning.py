"""Adapters of a model whose engines run on demand: whoever wants one waits for the engine, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway import errors
from gateway.control import residents
from tests.gateway.control.adapter_rig import rig


class Summons:
    """An engine comes, as long as it is not given up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_coming = True
        self.heard = asyncio.Event()

    def __call__(self, model: str) -> bool:
        self.asked.append(model)
        self.heard.set()
        return self.is_coming


async def test_a_want_starts_an_engine_and_is_answered_once_that_holds_the_version(tmp_path: Path) -> None:
    async with rig(tmp_path, is_up=False) as made:
        summons = Summons()
        made.adapters.summon_by(summons, 30.0)
        version = await made.add("a")
        await made.push()
        wanting = asyncio.create_task(made.want(version))
        await summons.heard.wait()
        assert not wanting.done()
        assert not made.told(version).refusal
        await made.up("demo-0")
        assert (await wanting).engines == ("demo-0",)
        assert set(summons.asked) == {"demo"}


async def test_a_flip_starts_an_engine_too(tmp_path: Path) -> None:
    async with rig(tmp_path, is_up=False) as made:
        summons = Summons()
        made.adapters.summon_by(summons, 30.0)
        version = await made.add("a")
        flipping = asyncio.create_task(made.flip("support", version))
        await summons.heard.wait()
        await made.up("demo-0")
        await flipping
        assert made.told(version).engines == ("demo-0",)


async def test_who_waits_is_refused_once_the_engine_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "SUMMON_LOOK_S", 0.01)
    async with rig(tmp_path, is_up=False) as made:
        summons = Summons()
        made.adapters.summon_by(summons, 30.0)
        version = await made.add("a")
        await made.push()
        wanting = asyncio.create_task(made.want(version))
        await summons.heard.wait()
        summons.is_coming = False
        assert "no engine of demo is ready" in (await wanting).refusal


async def test_the_wait_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residents, "SUMMON_LOOK_S", 0.01)
    async with rig(tmp_path, is_up=False) as made:
        made.adapters.summon_by(Summons(), 0.1)
        version = await made.add("a")
        with pytest.raises(errors.NoEngineReady, match="no engine of demo is ready"):
            await made.adapters.prove(version)


async def test_an_engine_on_which_something_is_loaded_is_at_work(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        assert not made.adapters.is_at_work("demo-0")
        assert not made.adapters.is_at_work("nobody")
        made.engines["demo-0"].gate.clear()
        made.adapters.want(version, 0)
        async with asyncio.timeout(2):
            while not made.adapters.is_at_work("demo-0"):
                await asyncio.sleep(0.001)
        made.engines["demo-0"].gate.set()
        await made.settled()
        assert not made.adapters.is_at_work("demo-0")
