from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from backends.base import Backend, Identity
from backends.llamacpp.launch import LlamaCpp
from backends.probe import Prober
from backends.process import Launcher
from backends.status import State, Status
from gateway.configfile import parse
from gateway.control.fleet import Fleet
from gateway.control.runtime import means_of
from gateway.control.supervisor import NoTuning, Supervisor, backends_of
from gateway.home import Home
from gateway.origin import PoolsRefused
from gateway.snapshot import Snapshot


class Observed:
    def __init__(self) -> None:
        self.states: list[str] = []

    def engine(self, engine_id: str, status: Status) -> None:
        self.states.append(f"{engine_id} {status.state}")


class Equipment:
    """Equips until it is told to end; remembers what it was asked."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.end = asyncio.Event()
        self._fault = fault

    def add_engine(self, engine_id: str, model: str, backend: Backend) -> None:
        self.asked.append(f"add {engine_id}")

    async def equip(self, engine_id: str, status: Status) -> None:
        self.asked.append(f"equip {engine_id}")
        await self.end.wait()
        if self._fault is not None:
            raise self._fault

    def ready(self, engine_id: str) -> None:
        self.asked.append(f"ready {engine_id}")

    def pause(self, engine_id: str) -> None:
        self.asked.append(f"pause {engine_id}")

    def down(self, engine_id: str) -> None:
        self.asked.append(f"down {engine_id}")

    def is_at_work(self, engine_id: str) -> bool:
        return False


async def _nobody(snapshot: Snapshot) -> tuple[int, ...]:
    return ()


async def test_a_bug_in_one_engines_life_is_logged_and_shown_not_swallowed(tmp_path: Path) -> None:
    config = parse("models: [{name: org/far, pools: [{engine: remote, base_url: http://h, replicas: 2}]}]")
    home, observed = Home(tmp_path), Observed()
    launcher, prober = await Launcher.start(), Prober()
    fleet = Fleet(config, _nobody)
    supervisor = Supervisor(launcher, prober, fleet, home, observed, Equipment(), means_of(config, home))
    ((model, pool, backend),) = backends_of(config, home)

    async def broken(*_: object) -> Identity:
        raise RuntimeError("a bug")

    backend.prepare = broken  # type: ignore[method-assign]
    supervisor.add(model, pool, backend)
    supervisor.start()
    async with asyncio.timeout(5):
        while not fleet.is_hopeless:
            await asyncio.sleep(0.01)
        await supervisor.settled()
        assert fleet.members["org/far-1"].status.state is State.FAILED
        num_reports = len(observed.states)
        supervisor.lives["org/far-0"].restart()  # it still takes commands
        while len(observed.states) < num_reports + 2:
            await asyncio.sleep(0.01)
        await supervisor.stop()
    assert set(fleet.members) == {"org/far-0", "org/far-1"}
    assert "RuntimeError: a bug" in supervisor.lives["org/far-0"].log.tail(1)[0]
    assert (tmp_path / "logs" / "org_far-0.log").exists()
    await prober.close()
    await launcher.close()


@pytest.mark.parametrize("fault", [None, RuntimeError("a bug")])
async def test_an_engine_takes_traffic_once_it_holds_its_adapters_or_that_failed(
    tmp_path: Path, fault: Exception | None
) -> None:
    equipment = Equipment(fault)
    supervisor, fleet, observed = equipped(tmp_path, equipment)
    await supervisor._announce("far-0")(Status(State.READY, ""))
    await asyncio.sleep(0.01)
    assert fleet.members["far-0"].status.state is State.STARTING
    assert fleet.members["far-0"].status.detail == "its adapters are being loaded"
    assert observed.states == []
    equipment.end.set()
    async with asyncio.timeout(5):
        while not fleet.members["far-0"].has_been_ready:
            await asyncio.sleep(0.001)
    assert equipment.asked == ["add far-0", "equip far-0", "ready far-0"]
    assert observed.states == ["far-0 ready"]
    assert bool(fault) == any("RuntimeError: a bug" in line for line in supervisor.lives["far-0"].log.tail(5))


async def test_an_engine_is_looked_at_between_its_adapters_and_its_traffic(tmp_path: Path) -> None:
    equipment = Equipment()
    equipment.end.set()
    supervisor, fleet, _ = equipped(tmp_path, equipment)
    seen: list[tuple[list[str], State]] = []

    class Looks(NoTuning):
        async def before_traffic(self, engine_id: str, status: Status) -> None:
            seen.append((list(equipment.asked), fleet.members[engine_id].status.state))

    supervisor._tuner = Looks()
    await supervisor._announce("far-0")(Status(State.READY, ""))
    async with asyncio.timeout(5):
        while not fleet.members["far-0"].has_been_ready:
            await asyncio.sleep(0.001)
    assert seen == [(["add far-0", "equip far-0"], State.STARTING)]


async def test_an_engine_that_drains_may_come_back_and_one_that_rests_is_another_launch(tmp_path: Path) -> None:
    equipment = Equipment()
    supervisor, _, _ = equipped(tmp_path, equipment)
    for state in (State.DRAINING, State.DRAINING, State.ASLEEP, State.STARTING, State.BACKOFF):
        await supervisor._announce("far-0")(Status(state, ""))
    assert equipment.asked == ["add far-0", *["pause far-0"] * 2, *["down far-0"] * 3]


class Sleeps:
    levels = (1,)


def test_a_sleep_that_an_engine_cannot_have_is_refused_when_the_configuration_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(level: int) -> str:
        pool = f"{{engine: llamacpp, model: demo, resident: on_demand, sleep_level: {level}}}"
        with pytest.raises(PoolsRefused) as caught:
            backends_of(parse(f"models:\n- {{name: m, pools: [{pool}]}}", "f.yaml"), Home(tmp_path))
        return str(caught.value)

    cannot = "such an engine, as it is configured, cannot sleep; with 0 it stops when it is idle"
    assert told(1) == f"f.yaml:2: models[0].pools[0]: sleep_level: 1: {cannot}"
    monkeypatch.setattr(LlamaCpp, "sleeps", Sleeps())
    assert told(2).endswith(": sleep_level: 2: it can at level 1; with 0 it stops when it is idle")


async def test_an_engine_that_ends_while_it_is_equipped_is_not_waited_for(tmp_path: Path) -> None:
    equipment = Equipment()
    supervisor, fleet, observed = equipped(tmp_path, equipment)
    await supervisor._announce("far-0")(Status(State.READY, ""))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await supervisor._announce("far-0")(Status(State.BACKOFF, "it died"))
    assert fleet.members["far-0"].status.state is State.BACKOFF
    assert not fleet.members["far-0"].has_been_ready
    assert observed.states == ["far-0 backoff"]
    assert equipment.asked[-1] == "down far-0"


def equipped(home: Path, equipment: Equipment) -> tuple[Supervisor, Fleet, Observed]:
    """One engine, not started, that can hold adapters."""
    config = parse("models: [{name: far, pools: [{engine: remote, base_url: http://h}]}]")
    fleet, observed, nothing = Fleet(config, _nobody), Observed(), cast(Any, None)
    supervisor = Supervisor(nothing, nothing, fleet, Home(home), observed, equipment, means_of(config, Home(home)))
    ((model, pool, backend),) = backends_of(config, Home(home))
    cast(Any, backend).adapters = object()
    supervisor.add(model, pool, backend)
    return supervisor, fleet, observed
