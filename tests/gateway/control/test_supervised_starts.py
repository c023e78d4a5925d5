"""The supervisor with stub engines: starts one after another, sleep when idle, waking for a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from backends.adapter.calls import LoraCalls
from backends.base import Backend
from backends.plan import GIB, RAM, Plan, Use
from backends.probe import Prober
from backends.process import Launcher
from backends.starttimes import StartTimes
from backends.status import State, Status
from gateway.config import Model, Pool
from gateway.configfile import parse
from gateway.control.fleet import Fleet
from gateway.control.room import Rules
from gateway.control.supervisor import Means, Supervisor
from gateway.home import Home
from gateway.snapshot import Snapshot
from tests.backends.life_rig import IMPATIENT, StubBackend, StubSleep


class Plenty:
    """Memory of a large machine."""

    def free(self, devices: Iterable[str]) -> Mapping[str, int]:
        return {RAM: 100 * GIB}

    def held(self, pid: int, devices: Iterable[str]) -> Mapping[str, int] | None:
        return None

    def holders(self, device: str) -> str:
        return ""


@dataclass
class Seen:
    """What was told of all engines, in its order; and what was equipped."""

    history: list[tuple[str, Status]] = field(default_factory=list)
    equipped: list[str] = field(default_factory=list)

    def engine(self, engine_id: str, status: Status) -> None:
        self.history.append((engine_id, status))

    def add_engine(self, engine_id: str, model: str, backend: Backend) -> None:
        return None

    async def equip(self, engine_id: str, status: Status) -> None:
        self.equipped.append(engine_id)

    def ready(self, engine_id: str) -> None:
        return None

    def pause(self, engine_id: str) -> None:
        return None

    def down(self, engine_id: str) -> None:
        return None

    def is_at_work(self, engine_id: str) -> bool:
        return False

    async def until(self, engine_id: str, state: State, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while sum(name == engine_id and status.state is state for name, status in self.history) < times:
                await asyncio.sleep(0.01)


class Lone(StubBackend):
    starts_alone = True


class Traffic:
    num_sent = 0

    def running(self, slot: int) -> int:
        return 0

    def sent(self, slot: int) -> int:
        return self.num_sent


async def _nobody(snapshot: Snapshot) -> tuple[int, ...]:
    return ()


@asynccontextmanager
async def supervised(folder: Path) -> AsyncIterator[tuple[Supervisor, Seen]]:
    config = parse("models: [{name: m, pools: [{engine: llamacpp, model: demo}]}]")
    seen, launcher, prober = Seen(), await Launcher.start(), Prober()
    means = Means(Plenty(), StartTimes(folder / "times.json"), Rules())
    supervisor = Supervisor(launcher, prober, Fleet(config, _nobody), Home(folder), seen, seen, means)
    try:
        yield supervisor, seen
    finally:
        await supervisor.stop(0.0)
        await prober.close()
        await launcher.close()


def add(supervisor: Supervisor, backend: Any, gib: int, **pool: Any) -> None:
    made = Pool("stub", model="m", **pool)
    plan = Plan((), (Use(RAM, gib * GIB, 0, 0, 0, None),), 1)
    supervisor.add(Model("m", (made,)), made, cast(Backend, backend), plan)


@pytest.mark.slow
async def test_engines_that_measure_the_free_memory_start_one_after_another_the_largest_first(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, seen):
        for gib in (1, 3, 2):
            add(supervisor, Lone(("--start-s", "0.3")), gib)
        supervisor.start()
        await supervisor.settled()
        ready = [name for name, status in seen.history if status.state is State.READY]
        assert ready == ["m-1", "m-2", "m-0"]
        for engine_id, follower in (("m-1", "m-2"), ("m-2", "m-0")):
            waits = [status.detail for name, status in seen.history if name == follower]
            assert f"waits for {engine_id}, which starts before it: both measure the free memory" in waits
        at = {name: supervisor.lives[name].status.ready_since or 0.0 for name in supervisor.lives}
        assert at["m-1"] + 0.3 < at["m-2"]
        assert at["m-2"] + 0.3 < at["m-0"]


async def test_a_trial_has_its_own_turn_at_the_gate(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, _):
        add(supervisor, Lone(), 1)
        supervisor.start()
        await supervisor.settled()
        trial, real = supervisor.trial_ties("m-0").gate, supervisor._life("m-0", 0, "", Lone())._ties.gate
        told: list[str] = []
        assert await trial.enter(told.append) == ""
        entering = asyncio.ensure_future(real.enter(told.append))
        async with asyncio.timeout(5):
            while not told:
                await asyncio.sleep(0.01)
        real.leave()  # a command to the engine itself
        assert not entering.done()
        assert told == ["waits for m-0 (trial), which starts before it: both measure the free memory"]
        trial.leave()
        async with asyncio.timeout(5):
            assert await entering == ""


async def test_an_idle_engine_sleeps_and_a_request_wakes_it_equipped_like_one_that_was_started(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, seen):
        backend = StubBackend(sleeps=StubSleep())
        backend.adapters = LoraCalls("adapter.gguf")
        add(supervisor, backend, 1, resident="on_demand", idle_timeout_s=0.2, sleep_level=2)
        supervisor.on_demand.traffic = Traffic()
        supervisor.start()
        await supervisor.settled()
        life = supervisor.lives["m-0"]
        assert (life.status.state, life.status.detail) == (State.STOPPED, "not started: the next request starts it")
        assert supervisor.on_demand.want("m")
        await seen.until("m-0", State.ASLEEP)
        assert life.status.detail == "asleep (level 2): idle for 0.2 s; the next request wakes it"
        pid = life.status.pid
        for _ in range(3):  # coalesced
            supervisor.on_demand.want("m")
        await seen.until("m-0", State.READY, times=2)
        assert life.status.pid == pid
        assert seen.equipped == ["m-0", "m-0"]
        starting = [status.detail for _, status in seen.history if status.state is State.STARTING]
        assert starting == ["stub is starting", "stub is waking up"]


async def test_requests_that_go_on_asking_do_not_start_a_broken_engine_over_and_over(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, seen):
        policy = replace(IMPATIENT, first_pause_s=0.6, max_pause_s=5.0)
        backend = StubBackend(("--says", "for now: --foo is not known", "--crash", "x"), policy=policy)
        add(supervisor, backend, 1, resident="on_demand")
        supervisor.start()
        assert supervisor.on_demand.want("m")
        await seen.until("m-0", State.STOPPED)
        assert not supervisor.on_demand.want("m")
        until_s = time.monotonic() + 1.2
        while time.monotonic() < until_s:
            supervisor.on_demand.want("m")
            await asyncio.sleep(0.005)
        await seen.until("m-0", State.STOPPED, times=3)  # the end of the first pause was told, too
        assert len(backend.ports) == 2
        (told,) = supervisor._fleet.snapshot().models[0].engines
        assert (told.is_on_demand, told.is_paused, told.retry_after_s) == (True, True, 2)
        assert told.detail == "--foo is not known; the next request after a pause tries again"
