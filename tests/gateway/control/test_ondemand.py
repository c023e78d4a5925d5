"""Engines on demand: which one a request starts, and which ones are sent away when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from backends.lifecycle import EngineLife
from backends.status import Drain, State, Status
from gateway.config import Pool
from gateway.control.ondemand import OnDemand, Tenant
from gateway.control.room import Phase


@dataclass
class Life:
    """Takes commands, and does nothing."""

    status: Status
    wants: int = 0
    drains: list[Drain] = field(default_factory=list)
    backend: Any = field(default_factory=lambda: type("Any", (), {"starts_alone": True})())

    def want(self) -> None:
        self.wants += 1

    def drain(self, drain: Drain) -> None:
        self.drains.append(drain)


class Traffic:
    def __init__(self) -> None:
        self.now = [0, 0, 0]
        self.ever = [0, 0, 0]

    def running(self, slot: int) -> int:
        return self.now[slot]

    def sent(self, slot: int) -> int:
        return self.ever[slot]


class House:
    """`demo` with engines in these states; all on demand unless `always`."""

    def __init__(
        self, *states: State, always: tuple[int, ...] = (), sleep_level: int = 0, idle_s: float = 60.0
    ) -> None:
        self.clock_s = 100.0
        self.used: set[str] = set()
        self.traffic = Traffic()
        self.demand = OnDemand(self.used.__contains__, lambda: self.clock_s)
        self.demand.traffic = self.traffic
        self.lives = [Life(Status(state)) for state in states]
        for slot, life in enumerate(self.lives):
            resident = "always" if slot in always else "on_demand"
            pool = Pool("llamacpp", resident=resident, idle_timeout_s=idle_s, sleep_level=sleep_level)  # type: ignore[arg-type]
            tenant = Tenant(f"demo-{slot}", slot, "demo", pool, cast(EngineLife, life), {"RAM": 7}, True)
            self.demand.add(tenant)

    @property
    def wants(self) -> list[int]:
        return [life.wants for life in self.lives]


@pytest.mark.parametrize(
    ("states", "wants", "is_coming"),
    [
        ([State.STOPPED, State.STOPPED], [1, 0], True),
        ([State.STOPPED, State.ASLEEP], [0, 1], True),
        ([State.DRAINING, State.STOPPED], [0, 1], True),
        ([State.DRAINING, State.FAILED], [1, 0], True),
        ([State.STOPPED, State.STARTING], [0, 0], True),
        ([State.READY, State.STOPPED], [0, 0], True),
        ([State.FAILED, State.BACKOFF], [0, 0], True),
        ([State.FAILED, State.STOPPED], [0, 1], True),
        ([State.FAILED, State.FAILED], [0, 0], False),
    ],
)
def test_one_engine_comes_for_all_requests(states: list[State], wants: list[int], is_coming: bool) -> None:
    house = House(*states)
    assert house.demand.want("demo") == is_coming
    assert house.wants == wants


def test_another_engine_is_tried_where_the_start_of_one_failed() -> None:
    house = House(State.STOPPED, State.STOPPED, State.STOPPED)
    for life, num in zip(house.lives, (2, 1, 1), strict=True):
        life.status = replace(life.status, num_failed_starts=num)
    assert house.demand.want("demo")
    assert house.wants == [0, 1, 0]
    house.lives[0].status = replace(house.lives[0].status, state=State.ASLEEP)
    assert house.demand.want("demo")
    assert house.wants == [1, 1, 0]


def test_an_engine_that_pauses_is_not_started_and_nobody_is_told_that_it_comes() -> None:
    house = House(State.STOPPED, State.STOPPED)
    house.lives[0].status = replace(house.lives[0].status, is_paused=True)
    assert house.demand.want("demo")
    assert house.wants == [0, 1]
    house.lives[1].status = replace(house.lives[1].status, is_paused=True)
    assert not house.demand.want("demo")
    assert house.wants == [0, 1]


def test_what_always_stays_or_was_drained_by_command_is_not_started_by_requests() -> None:
    house = House(State.STOPPED, State.STOPPED, always=(0,))
    house.lives[1].status = replace(house.lives[1].status, is_held=True)
    assert not house.demand.want("demo")
    assert house.wants == [0, 0]
    assert not house.demand.want("nobody's")
    served = House(State.READY, State.STOPPED, always=(0,))
    assert not served.demand.want("demo")
    assert served.wants == [0, 0]


@pytest.mark.parametrize("state", [State.STARTING, State.BACKOFF])
def test_an_engine_that_always_stays_and_is_not_ready_keeps_none_from_being_started(state: State) -> None:
    house = House(state, State.STOPPED, always=(0,))
    assert house.demand.want("demo")
    assert house.wants == [0, 1]


def test_an_engine_without_requests_for_its_time_leaves() -> None:
    house = House(State.READY, State.READY, always=(1,), idle_s=60.0, sleep_level=1)
    house.demand.serves("demo-0")
    house.demand.serves("demo-1")
    house.demand.look()
    house.clock_s += 59.0
    house.traffic.ever[0] += 1
    house.demand.look()
    house.clock_s += 59.9
    house.demand.look()
    assert house.lives[0].drains == []
    house.clock_s += 0.1
    house.demand.look()
    assert house.lives[0].drains == [Drain("idle for 60 s; the next request wakes it", 1, patience_s=0.0)]
    assert house.lives[1].drains == []


@pytest.mark.parametrize("why", ["requests", "adapters"])
def test_an_engine_that_is_used_does_not_leave(why: str) -> None:
    house = House(State.READY, idle_s=10.0)
    house.demand.serves("demo-0")
    house.demand.look()
    house.traffic.now[0] = int(why == "requests")
    house.used.update({"demo-0"} if why == "adapters" else ())
    house.clock_s += 1000.0
    house.demand.look()
    assert house.lives[0].drains == []


async def test_a_bug_in_one_look_is_logged_and_the_next_one_comes(capsys: pytest.CaptureFixture[str]) -> None:
    house = House(State.READY, idle_s=0.02)
    house.demand.serves("demo-0")
    good = house.traffic.sent
    house.traffic.sent = lambda slot: 1 // 0  # type: ignore[method-assign]
    task = asyncio.create_task(house.demand.run())
    await asyncio.sleep(0.01)
    assert "ZeroDivisionError" in capsys.readouterr().err
    house.traffic.sent = good  # type: ignore[method-assign]
    async with asyncio.timeout(2):
        while not house.lives[0].drains:
            house.clock_s += 1.0
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})


def test_what_the_gate_sees() -> None:
    house = House(State.READY, State.ASLEEP, State.STOPPED)
    house.demand.serves("demo-0")
    house.traffic.now[0] = 2
    house.clock_s += 5.0
    first, second = [seen.occupant for seen in house.demand.up()]
    assert (first.phase, first.can_leave, first.num_running, first.up_s) == (Phase.READY, True, 2, 5.0)
    assert (second.phase, second.can_leave) == (Phase.ASLEEP, True)
    house.demand.rests("demo-0")
    assert not house.demand.up()[0].occupant.can_leave  # ready, and not yet taking traffic


def test_making_way() -> None:
    house = House(State.READY, State.READY, State.ASLEEP, sleep_level=2)
    house.demand.make_way("demo-0", "big-0", patience_s=0.0)
    house.demand.make_way("demo-1", "big-0", patience_s=30.0)
    house.demand.make_way("demo-2", "big-0", patience_s=0.0)
    (idle,), (busy,), (asleep,) = (life.drains for life in house.lives)
    assert (idle.level, idle.patience_s, idle.is_command) == (2, 0.0, False)
    assert (busy.level, busy.patience_s) == (2, 30.0)
    assert asleep.level == 0
    assert idle.why == "it made way for big-0; the next request wakes it"
