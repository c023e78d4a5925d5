"""One round at a time for each engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.control.equip import Reconciler
from gateway.control.loads import Loads
from tests.gateway.control.adapter_rig import rig


async def test_an_alias_that_moves_in_an_engines_first_round_begins_none_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = num_rounds = 0
    bring_all = Reconciler._bring_all

    async def counted(self: Reconciler, loads: Loads) -> float | None:
        nonlocal now, most, num_rounds
        now, num_rounds = now + 1, num_rounds + 1
        most = max(most, now)
        try:
            return await bring_all(self, loads)
        finally:
            now -= 1

    async with rig(tmp_path) as made:
        await made.flip("support", await made.add("a"))
        await made.down("demo-0")
        engine = made.engines["demo-0"]
        engine.restart()
        engine.gate.clear()
        monkeypatch.setattr(Reconciler, "_bring_all", counted)
        coming = asyncio.create_task(made.up("demo-0"))
        await asyncio.sleep(0.01)
        made.adapters._residents.reconcile("demo")
        await asyncio.sleep(0.01)
        engine.gate.set()
        await coming
        async with asyncio.timeout(5):
            while made.adapters._residents.tasks:
                await asyncio.sleep(0.001)
        assert (most, num_rounds) == (1, 2)


# Drains that are taken back.


async def test_an_engine_that_takes_traffic_again_holds_what_it_held(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        await made.want(b)
        engine = made.engines["demo-0"]
        before = engine.num_scored, list(engine.log)
        made.adapters.pause("demo-0")
        await made.push()
        assert made.told(a).engines == ()
        await made.up("demo-0")
        assert made.told(a).engines == made.told(b).engines == ("demo-0",)
        assert made.told(a).proof == "proven"
        assert (engine.num_scored, engine.log) == before


@pytest.mark.parametrize("command", ["unload", "remove"])
async def test_what_was_freed_meanwhile_goes_when_it_is_back(tmp_path: Path, command: str) -> None:
    async with rig(tmp_path) as made:
        a = await made.add("a")
        await made.want(a)
        engine = made.engines["demo-0"]
        made.adapters.pause("demo-0")
        await getattr(made.adapters, command)(a)
        await made.up("demo-0")
        assert engine.held == {}
        assert all(adapter.engines == () for adapter in made.pushed[-1].adapters)


@pytest.mark.parametrize("command", ["unload", "remove"])
async def test_what_is_freed_while_it_is_loaded_in_a_drain_does_not_stay(tmp_path: Path, command: str) -> None:
    async with rig(tmp_path) as made:
        a = await made.add("a")
        engine = made.engines["demo-0"]
        engine.gate.clear()
        made.adapters._residents.want(a)
        await asyncio.sleep(0.01)
        made.adapters.pause("demo-0")
        freeing = asyncio.create_task(getattr(made.adapters, command)(a))
        await asyncio.sleep(0.01)
        assert not freeing.done(), "its files would be gone under the load"
        engine.gate.set()
        await freeing
        await made.up("demo-0")
        await made.settled()
        assert engine.held == {}
        assert all(adapter.engines == () for adapter in made.pushed[-1].adapters)


async def test_after_a_sleep_everything_is_loaded_anew(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.flip("support", a := await made.add("a"))
        engine = made.engines["demo-0"]
        before = engine.num_scored
        made.adapters.pause("demo-0")
        engine.held.clear()
        await made.adapters.equip("demo-0", replace(engine.status, ready_since=7.0))
        assert engine.log == [f"load {a}"] * 2
        assert engine.num_scored == 2 * before


async def test_a_load_that_goes_on_in_a_drain_is_waited_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        engine = made.engines["demo-0"]
        await made.down("demo-0")
        engine.restart()
        engine.gate.clear()
        coming = asyncio.create_task(made.up("demo-0"))
        await asyncio.sleep(0.01)
        coming.cancel()  # as the supervisor does
        made.adapters.pause("demo-0")
        again = asyncio.create_task(made.up("demo-0"))
        await asyncio.sleep(0.01)
        assert not again.done()
        engine.gate.set()
        await again
        assert made.told(a).engines == ("demo-0",)
        await made.flip("support", b)
        await made.settled()
        assert engine.log == [f"load {a}"] * 2 + [f"load {b}"]
