"""What one engine holds when its requests do not end in time: nothing is lost, nobody else waits, slots count right."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway import errors
from gateway import snapshot as wire
from tests.gateway.control.adapter_rig import rig


async def test_a_version_that_could_not_be_unloaded_serves_again(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        engine = made.engines["demo-0"]
        with engine.request(a):
            with pytest.raises(errors.Conflict, match="still used"):
                await made.adapters.unload(a)
            assert made.told(a).engines == ("demo-0",)
            assert not engine.leaving, "the snapshot names it no sooner than it serves"
            began_s = time.monotonic()
            assert (await made.want(b)).engines == ("demo-0",)
            assert time.monotonic() - began_s < 0.08, "nobody waits for what stays"
        assert engine.log == [f"load {a}", f"load {b}"]
        await made.adapters.unload(a)
        assert not made.told(a).engines


async def test_a_victim_whose_requests_go_on_stays(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        engine = made.engines["demo-0"]
        with engine.request(a):
            assert "still used" in (await made.want(b)).refusal
            assert made.told(a).engines == ("demo-0",)
            assert (await made.want(a)).engines == ("demo-0",)
        assert set(engine.held) == {a}


async def test_what_somebody_else_unloads_is_taken_back_when_it_is_wanted(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        a = await made.add("a")
        await made.want(a)
        engine = made.engines["demo-0"]
        with engine.request(a):
            engine.leaving[a] = object()
            made.adapters.trouble(wire.EngineTrouble("demo-0", errors.AdapterAbsent.code))
            async with asyncio.timeout(2):
                while made.told(a).engines:
                    await asyncio.sleep(0.001)
            assert (await made.want(a)).engines == ("demo-0",)
            assert not engine.leaving
        assert engine.log[-1] == f"take back {a}"


async def test_a_busy_stranger_takes_a_slot_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        a, b = await made.add("a"), await made.add("b")
        engine = made.engines["demo-0"]
        engine.held["stranger"] = ""
        with engine.request("stranger"):
            await made.want(a)
            began_s = time.monotonic()
            assert (await made.want(b)).engines == ("demo-0",)
            assert time.monotonic() - began_s < 0.08
            assert set(engine.held) == {"stranger", b}
        await made.want(a)
        assert set(engine.held) == {a, b}


async def test_what_comes_back_is_recognised_by_one_text(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        await made.want(b)
        engine = made.engines["demo-0"]
        before = engine.num_scored
        assert (await made.want(a)).proof == "proven"
        assert engine.log[-1] == f"load {a}"
        assert engine.num_scored - before == 1


@pytest.mark.parametrize("instead", ["", "b"])
async def test_what_comes_back_as_something_else_is_refused(tmp_path: Path, instead: str) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        await made.want(b)
        made.engines["demo-0"].serves["a"] = instead
        told = await made.want(a)
        assert not told.engines
        assert "it failed its proof on demo-0" in told.refusal


async def test_after_a_restart_everything_is_proven_anew(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a = await made.add("a")
        await made.want(a)
        engine = made.engines["demo-0"]
        first = engine.num_scored
        await made.down("demo-0")
        engine.restart()
        await made.up("demo-0")
        assert (await made.want(a)).proof == "proven"
        assert engine.num_scored == 2 * first
