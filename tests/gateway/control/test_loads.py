"""What one engine holds when its requests do not end in time: nothing is lost, nobody else waits, slots count right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from backends.adapter.golden import Golden
from gateway import errors
from gateway import snapshot as wire
from gateway.control.desired import Version
from gateway.control.loads import Loads
from gateway.control.residents import Residents
from tests.gateway.control.adapter_rig import Rig, rig


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


def places(made: Rig, name: str, since: int) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Where snapshots from number `since` on say that it is loaded, and held; repetitions left out."""
    told = [made.told(name, at) for at in range(since, len(made.pushed))]
    each = [(adapter.unproven, adapter.engines) for adapter in told]
    return [place for at, place in enumerate(each) if at == 0 or place != each[at - 1]]


HERE, NOWHERE = ("demo-0",), ()


async def test_what_comes_back_may_be_asked_while_it_is_recognised(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        since = len(made.pushed)
        await made.want(a)
        assert places(made, a, since) == [(NOWHERE, HERE)], "many tokens are scored: nothing is sent meanwhile"
        await made.want(b)
        made.engines["demo-0"].score_s = 0.01
        since = len(made.pushed)
        await made.want(a)
        assert places(made, a, since) == [(NOWHERE, NOWHERE), (HERE, NOWHERE), (NOWHERE, HERE)]


@pytest.mark.parametrize("instead", ["", "b"])
async def test_whose_requests_may_have_met_something_else_is_lost_for_that_launch(tmp_path: Path, instead: str) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        await made.want(b)
        engine = made.engines["demo-0"]
        engine.serves["a"] = instead
        engine.score_s = 0.01
        since = len(made.pushed)
        on_engine: list[tuple[tuple[str, ...], bool]] = []
        made.on_push = lambda _: on_engine.append((made.told(a).unproven, a in engine.held))
        refusal = (await made.want(a)).refusal
        assert "`forgegate engines restart demo-0`" in refusal
        assert places(made, a, since) == [(NOWHERE, NOWHERE), (HERE, NOWHERE), (NOWHERE, NOWHERE)]
        called_back = on_engine.index((HERE, True)) + 1
        assert on_engine[called_back] == (NOWHERE, True), "requests are called back before it is freed"
        engine.serves.clear()
        assert (await made.adapters.prove(a)).proof == "failed", "what the engine cached under its name is there still"
        await made.down("demo-0")
        engine.restart()
        await made.up("demo-0")
        await made.adapters.prove(a)
        assert (await made.want(a)).proof == "proven"


async def test_an_engine_that_ends_while_it_recognises_is_named_no_longer(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        await made.want(b)
        engine = made.engines["demo-0"]
        engine.score_s = 0.01
        made.on_push = lambda _: engine.die() if made.told(a).unproven else None
        assert "does not answer" in (await made.want(a)).refusal
        assert made.told(a).unproven == ()


async def test_recognising_needs_nobody_elses_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    siblings = Residents.siblings

    async def noted(self: Residents, loads: Loads, version: Version) -> Mapping[str, Golden]:
        asked.append(version.name)
        return await siblings(self, loads, version)

    monkeypatch.setattr(Residents, "siblings", noted)
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        for name in (a, b, a, b):
            await made.want(name)
    assert asked == [a, b]
