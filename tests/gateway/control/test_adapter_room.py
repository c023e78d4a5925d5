"""More adapters than slots: who is loaded where, and who leaves for it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.gateway.control.adapter_rig import rig


async def test_room_is_made_by_who_was_asked_for_least_recently(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        a, b, c = [await made.add(label) for label in "abc"]
        for name in (a, b, a, c):
            assert (await made.want(name)).engines == ("demo-0",)
        assert set(made.engines["demo-0"].held) == {a, c}
        assert made.told(b).engines == ()


async def test_a_victim_leaves_the_snapshot_before_it_leaves_the_engine(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        seen: list[tuple[bool, bool]] = []
        made.on_push = lambda snapshot: seen.append((bool(made.told(a).engines), a in made.engines["demo-0"].held))
        await made.want(b)
        assert (False, True) in seen
        assert (True, False) not in seen


async def test_a_victim_with_running_requests_leaves_when_they_end(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        with made.engines["demo-0"].request(a):
            waiting = asyncio.create_task(made.want(b))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            assert a in made.engines["demo-0"].held
        assert (await waiting).engines == ("demo-0",)


async def test_a_victim_that_does_not_leave_serves_on(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        with made.engines["demo-0"].request(a):
            told = await made.want(b)
        assert "still used by requests" in told.refusal
        assert told.retry_after_s > 1
        assert made.told(a).engines == ("demo-0",)


async def test_idle_ones_go_first(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        a, b, c = [await made.add(label) for label in "abc"]
        await made.want(a)
        await made.want(b)
        with made.engines["demo-0"].request(a):
            await made.want(c)
        assert set(made.engines["demo-0"].held) == {a, c}


async def test_a_hundred_wants_are_one_load(tmp_path: Path) -> None:
    async with rig(tmp_path, (2, 2)) as made:
        version = await made.add("a")
        await asyncio.gather(*(made.want(version) for _ in range(100)))
        assert sum(len(engine.log) for engine in made.engines.values()) == 1


async def test_cold_ones_go_where_there_is_room(tmp_path: Path) -> None:
    async with rig(tmp_path, (2, 2)) as made:
        names = [await made.add(label) for label in "abcd"]
        await asyncio.gather(*(made.want(name) for name in names))
        assert {len(engine.held) for engine in made.engines.values()} == {2}
        assert all(len(made.told(name).engines) == 1 for name in names)


async def test_fifty_over_four_slots_hit_as_often_as_an_ideal_lru(tmp_path: Path) -> None:
    chance = random.Random(3)
    sequence = chance.choices(range(50), [1 / (rank + 1) for rank in range(50)], k=200)
    async with rig(tmp_path, (2, 2)) as made:
        names = [await made.add(f"v{index}", f"a{index}") for index in range(50)]
        for name in names:
            await made.flip(name.partition("@")[0], name)
        await made.settled()
        hits = 0
        for index in sequence:
            made.adapters.used([names[index]])
            hits += bool(made.told(names[index]).engines)
            assert (await made.want(names[index])).engines
    ideal: list[int] = []
    ideal_hits = 0
    for index in sequence:
        if index in ideal:
            ideal_hits += 1
            ideal.remove(index)
        ideal = [*ideal, index][-4:]
    assert hits >= 0.95 * ideal_hits
