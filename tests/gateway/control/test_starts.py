"""The gate: who is let in when, with engines and memory that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from backends.plan import GIB
from gateway.control import starts
from gateway.control.room import Occupant, Phase, Round, Rules
from gateway.control.starts import Door, Seen, Starts

GPU = "CUDA0"
RULES = Rules(turn_s=0.2, release_s=0.4, max_wait_s=5.0)


class House:
    """Engines and the memory that they hold."""

    def __init__(self, total_gib: int) -> None:
        self.total = total_gib * GIB
        self.stranger = 0
        self.occupants: dict[str, Occupant] = {}
        self.left: list[tuple[str, str, float]] = []
        self.is_deaf = False

    def move_in(self, name: str, gib: int, phase: Phase = Phase.READY, **more: object) -> None:
        given = {"can_leave": True, "up_s": 60.0, **more}
        self.occupants[name] = Occupant(name, phase, {GPU: gib * GIB}, **given)  # type: ignore[arg-type]

    def up(self) -> Sequence[Seen]:
        return [Seen(one, pid, True) for pid, one in enumerate(self.occupants.values(), 100)]

    def make_way(self, engine_id: str, for_whom: str, patience_s: float) -> None:
        self.left.append((engine_id, for_whom, patience_s))
        if not self.is_deaf:
            self.occupants.pop(engine_id, None)

    def free(self, devices: Iterable[str]) -> Mapping[str, int]:
        used = self.stranger + sum(one.needs[GPU] for one in self.occupants.values() if one.phase is not Phase.STARTING)
        return {GPU: self.total - used}

    def held(self, pid: int, devices: Iterable[str]) -> Mapping[str, int] | None:
        one = list(self.occupants.values())[pid - 100]
        return {} if one.phase is Phase.STARTING else one.needs

    def holders(self, device: str) -> str:
        return "python (pid 7) 9.0 GiB"


class Gate:
    """A gate whose task runs, and what those who wait were told."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.starts = Starts(house, house, RULES)
        self.task = asyncio.create_task(self.starts.run())
        self.told: dict[str, list[str]] = {}

    def door(self, name: str, gib: int, is_alone: bool = False) -> Door:
        return self.starts.door(name, {GPU: gib * GIB}, is_alone)

    def enter(self, door: Door) -> asyncio.Task[str]:
        texts = self.told.setdefault(door.applicant.id, [])
        return asyncio.create_task(door.enter(texts.append))


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    made = Gate(House(10))
    yield made
    made.task.cancel()
    with suppress(asyncio.CancelledError):
        await made.task


async def test_what_fits_comes_in_at_once(gate: Gate) -> None:
    async with asyncio.timeout(1):
        assert await gate.enter(gate.door("a", 4)) == ""


async def test_lone_ones_come_in_one_after_another(gate: Gate) -> None:
    first, second = gate.door("a", 4, is_alone=True), gate.door("b", 3, is_alone=True)
    assert await gate.enter(first) == ""
    gate.house.move_in("a", 4, Phase.STARTING, is_alone=True)
    waiting = gate.enter(second)
    await asyncio.sleep(0.4)
    assert not waiting.done()
    assert gate.told["b"] == ["waits for a, which starts before it: both measure the free memory"]
    gate.house.move_in("a", 4)
    first.leave()
    async with asyncio.timeout(1):
        assert await waiting == ""


async def test_what_starts_in_the_place_of_a_stopped_engine_counts_as_one(gate: Gate) -> None:
    trial = gate.door("a", 4, is_alone=True)
    assert await gate.enter(trial) == ""
    waiting = gate.enter(gate.door("b", 3, is_alone=True))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    trial.leave()
    async with asyncio.timeout(1):
        assert await waiting == ""


async def test_the_largest_of_those_that_start_together_begins_also_if_it_is_the_slowest_to_come(gate: Gate) -> None:
    small, large = gate.door("small", 2, is_alone=True), gate.door("large", 6, is_alone=True)
    gate.starts.expect([small, large])
    waiting = gate.enter(small)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert await gate.enter(large) == ""
    large.leave()
    assert await waiting == ""


async def test_one_that_fails_before_it_comes_is_not_waited_for(gate: Gate) -> None:
    small, large = gate.door("small", 2, is_alone=True), gate.door("large", 6, is_alone=True)
    gate.starts.expect([small, large])
    waiting = gate.enter(small)
    large.leave()
    async with asyncio.timeout(1):
        assert await waiting == ""


async def test_who_gives_up_leaves_the_line_and_its_door(gate: Gate) -> None:
    gate.house.move_in("z", 8, can_leave=False)
    door = gate.door("a", 4)
    waiting = gate.enter(door)
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await gate.enter(gate.door("b", 2)) == ""


async def test_who_gives_up_while_a_round_looks_is_not_let_in(gate: Gate) -> None:
    waiting, decide = gate.enter(gate.door("a", 8, is_alone=True)), starts.decide
    with pytest.MonkeyPatch.context() as patched:

        def as_it_leaves(*given: Any) -> Round:
            waiting.cancel()
            return decide(*given)

        patched.setattr(starts, "decide", as_it_leaves)
        await asyncio.wait({waiting})
    async with asyncio.timeout(1):
        assert await gate.enter(gate.door("b", 8, is_alone=True)) == ""


async def test_one_that_wakes_keeps_what_it_holds_and_sends_nobody_away(gate: Gate) -> None:
    gate.house.move_in("z", 5, is_alone=True)
    gate.house.move_in("a", 1, Phase.ASLEEP)
    held = gate.house.held
    gate.house.held = lambda pid, devices: {GPU: GIB} if pid == 101 else held(pid, devices)  # type: ignore[method-assign]
    up = gate.house.up

    def waking() -> Sequence[Seen]:
        first, second = up()
        wakes = replace(second.occupant, phase=Phase.STARTING, needs={GPU: 5 * GIB}, can_leave=False)
        return [first, replace(second, occupant=wakes)]

    gate.house.up = waking  # type: ignore[method-assign]
    async with asyncio.timeout(1):
        assert await gate.enter(gate.door("a", 5, is_alone=True)) == ""
    assert gate.house.left == []


async def test_a_second_try_within_one_start_needs_no_second_admission(gate: Gate) -> None:
    door = gate.door("a", 8)
    assert await gate.enter(door) == ""
    gate.house.move_in("z", 8)
    assert await gate.enter(door) == ""


async def test_an_idle_engine_makes_way_and_its_memory_is_seen_free_before_the_start(gate: Gate) -> None:
    gate.house.move_in("z", 8)
    gate.house.is_deaf = True  # it takes its time
    waiting = gate.enter(gate.door("a", 8))
    await asyncio.sleep(0.05)
    assert gate.house.left == [("z", "a", 0.0)]
    gate.house.occupants["z"] = replace(gate.house.occupants["z"], phase=Phase.LEAVING)
    await asyncio.sleep(0.6)
    assert not waiting.done()
    gate.house.occupants.clear()
    async with asyncio.timeout(1):
        assert await waiting == ""


async def test_a_busy_engine_gives_up_its_turn_after_a_while(gate: Gate) -> None:
    gate.house.move_in("z", 8, num_running=3)
    waiting = gate.enter(gate.door("a", 8))
    await asyncio.sleep(0.1)
    assert gate.house.left == []
    async with asyncio.timeout(2):
        assert await waiting == ""
    assert gate.house.left == [("z", "a", RULES.max_wait_s)]


async def test_memory_that_a_stranger_holds_is_waited_for_and_the_user_told_who(gate: Gate) -> None:
    gate.house.stranger = 9 * GIB
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(3):
        assert await gate.enter(gate.door("a", 4)) == ""
    assert asyncio.get_running_loop().time() - began >= RULES.release_s
    assert gate.told["a"] == ["waits up to 0 s for 3.0 GiB of CUDA0; most of it is held by python (pid 7) 9.0 GiB"]


async def test_a_bug_in_a_round_leaves_nobody_waiting_for_good(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    free = gate.house.free
    gate.house.free = lambda devices: 1 / 0  # type: ignore[assignment, return-value]
    waiting = gate.enter(gate.door("a", 4))
    await asyncio.sleep(0.05)
    assert "ZeroDivisionError" in capsys.readouterr().err
    gate.house.free = free  # type: ignore[method-assign]
    async with asyncio.timeout(1):
        assert await waiting == ""
