"""The engines of a configuration: built, started, watched, stopped. One `EngineLife` each."""

from __future__ import annotations

import asyncio
import hashlib
import json
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from backends import build
from backends.base import Backend, Load, Places, PoolSpec
from backends.errors import BackendError, BadSpec
from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.plan import Plan
from backends.probe import Prober
from backends.process import Launcher
from backends.restart import RestartPolicy
from backends.status import State, Status
from backends.ties import OpenGate, Ties
from gateway.config import Config, Model, Pool
from gateway.control.fleet import Fleet, Member
from gateway.control.memory import Memory
from gateway.control.ondemand import OnDemand, Tenant, next_words
from gateway.control.room import Rules
from gateway.control.starts import Door, Starts
from gateway.home import Home
from gateway.origin import PoolsRefused

LOAD_TIMEOUT_S = 1.0


class Equipment(Protocol):
    """What an engine must hold before it takes traffic: `gateway.control.adapters`."""

    def add_engine(self, engine_id: str, model: str, backend: Backend) -> None: ...
    async def equip(self, engine_id: str, status: Status) -> None: ...
    def ready(self, engine_id: str) -> None: ...
    def pause(self, engine_id: str) -> None: ...
    def down(self, engine_id: str) -> None: ...
    def is_at_work(self, engine_id: str) -> bool: ...


class StartTimes(Protocol):
    """How long starts took, in seconds, remembered by key: `backends.starttimes`."""

    def last(self, key: str) -> float | None: ...
    def note(self, key: str, seconds: float) -> None: ...


class Tuner(Protocol):
    """What looks at an engine before it takes traffic, and may have it started anew: `gateway.control.tuning`."""

    async def before_traffic(self, engine_id: str, status: Status) -> None:
        """Its launch answers and holds its adapters; it takes traffic once this returns. Cancelled when that launch ends."""
        ...

    def advice(self, engine_id: str) -> str:
        """What its user should change, in one sentence; empty where nothing."""
        ...


class NoTuning:
    """Engines are taken as they are configured."""

    async def before_traffic(self, engine_id: str, status: Status) -> None:
        return None

    def advice(self, engine_id: str) -> str:
        return ""


class Observer(Protocol):
    """Told what people should see."""

    def engine(self, engine_id: str, status: Status) -> None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What starts are decided by."""

    memory: Memory
    times: StartTimes
    rules: Rules


def backends_of(config: Config, home: Home) -> list[tuple[Model, Pool, Backend]]:
    """Every pool's backend. Raises BadSpec, PoolsRefused."""
    places = Places(home.models, home.envs)
    pools = [(model, pool, build(_spec(model, pool), places)) for model in config.models for pool in model.pools]
    if refused := [
        (pool.origin, BadSpec([text])) for _, pool, backend in pools if (text := _sleep_problem(pool, backend))
    ]:
        raise PoolsRefused(refused)
    return pools


class Supervisor:
    """Owns the engines' tasks."""

    def __init__(
        self,
        launcher: Launcher,
        prober: Prober,
        fleet: Fleet,
        home: Home,
        observer: Observer,
        equipment: Equipment,
        means: Means,
        tuner: Tuner | None = None,
    ) -> None:
        self.lives: dict[str, EngineLife] = {}
        self.on_demand = OnDemand(equipment.is_at_work)
        self._launcher = launcher
        self._prober = prober
        self._fleet = fleet
        self._home = home
        self._observer = observer
        self._equipment = equipment
        self._means = means
        self._tuner = tuner or NoTuning()
        self._starts = Starts(means.memory, self.on_demand, means.rules)
        self._doors: dict[str, Door] = {}
        self._equipping: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._watches: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def add(self, model: Model, pool: Pool, backend: Backend, plan: Plan | None = None) -> None:
        """The pool's engines, not yet started; named `<model>-<n>` over all pools of the model."""
        for index in range(pool.replicas):
            engine_id = f"{model.name}-{len(self._fleet.of_model(model.name))}"
            slot = len(self.lives)
            self._fleet.add(Member(engine_id, slot, pool.engine, model.name, backend.capabilities, pool.is_on_demand))
            needs = _needs(plan, index)
            is_gated = pool.is_on_demand or backend.starts_alone
            if is_gated:
                self._doors[engine_id] = self._starts.door(
                    engine_id, needs, backend.starts_alone, not pool.is_on_demand
                )
            life = self.lives[engine_id] = self._life(
                engine_id, slot, _key(pool), backend, replace(backend.policy, retries_starts=not pool.is_on_demand)
            )
            if pool.is_on_demand:
                life.status = replace(life.status, detail=f"not started: {next_words()}")
                self._fleet.members[engine_id].status = life.status
            self.on_demand.add(Tenant(engine_id, slot, model.name, pool, life, needs, is_gated))
            self._equipment.add_engine(engine_id, model.name, backend)

    def start(self) -> None:
        """All but those that run on demand."""
        resident = [engine_id for engine_id in self.lives if not self._fleet.members[engine_id].is_on_demand]
        self._starts.expect([self._doors[engine_id] for engine_id in resident if engine_id in self._doors])
        for engine_id, life in self.lives.items():
            self._tasks.append(asyncio.create_task(self._watch(engine_id, life), name=engine_id))
            if engine_id in resident:
                life.start()
        self._watches.append(asyncio.create_task(self._starts.run(), name="starts"))
        self._watches.append(asyncio.create_task(self.on_demand.run(), name="idle engines"))

    def trouble(self, engine_id: str) -> None:
        """A worker could not talk to it."""
        if engine_id in self.lives:
            self.lives[engine_id].probe_now()

    def advice(self, engine_id: str) -> str:
        """What its user should change, in one sentence; empty where nothing."""
        return self._tuner.advice(engine_id)

    async def settled(self) -> None:
        """Until the first start of every engine that always stays came to an end."""
        members = self._fleet.members
        await asyncio.gather(*(self.lives[name].settled() for name in self.lives if not members[name].is_on_demand))
        if self._equipping:
            await asyncio.wait(self._equipping.values())

    async def stop(self, grace_s: float | None = None) -> None:
        """All engines, side by side; until they are gone. Called again, it hurries."""
        self._is_stopping = True
        for watch in self._watches:
            watch.cancel()
        for life in self.lives.values():
            life.close(grace_s)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def load(self, engine_id: str) -> Load | None:
        """Asked of the engine now; None where it does not say."""
        status = self.lives[engine_id].status
        if status.state is not State.READY:
            return None
        try:
            fetch = self._prober.fetch(status.address, status.secret, LOAD_TIMEOUT_S)
            return await self.lives[engine_id].backend.load(fetch)
        except BackendError:
            return None

    def trial_ties(self, engine_id: str) -> Ties:
        """Of one that is started in this engine's place, and serves nobody: it has a turn of its own."""
        door = self._doors.get(engine_id)
        if door is None:
            return Ties(gate=OpenGate())
        return Ties(gate=Door(self._starts, replace(door.applicant, id=f"{engine_id} (trial)")))

    def _life(
        self, engine_id: str, slot: int, key: str, backend: Backend, policy: RestartPolicy | None = None
    ) -> EngineLife:
        log = LogRing(self._home.logs / f"{engine_id.replace('/', '_')}.log")
        ties = Ties(
            refuse=lambda identity: self._fleet.claim_weights(engine_id, identity),
            num_running=lambda: self.on_demand.traffic.running(slot),
            gate=self._doors.get(engine_id) or OpenGate(),
            times=_Times(self._means.times, key),
        )
        return EngineLife(backend, self._launcher, self._prober, log, self._announce(engine_id), ties, policy=policy)

    def _announce(self, engine_id: str) -> Callable[[Status], Awaitable[None]]:
        async def announce(status: Status) -> None:
            await self._end_equipping(engine_id)
            if status.state is State.READY:
                # In a task of its own: an engine that dies or is stopped meanwhile is not kept waiting.
                task = asyncio.create_task(self._equip(engine_id, status), name=f"equip {engine_id}")
                self._equipping[engine_id] = task
                return
            if status.state is State.DRAINING:
                self._equipment.pause(engine_id)
            else:
                self._equipment.down(engine_id)
            self.on_demand.rests(engine_id)
            await self._report(engine_id, status)

        return announce

    async def _report(self, engine_id: str, status: Status) -> None:
        self._observer.engine(engine_id, status)
        await self._fleet.report(engine_id, status)

    async def _equip(self, engine_id: str, status: Status) -> None:
        """The engine serves; it takes traffic once it holds the adapters that it should, and has been looked at."""
        try:
            if self.lives[engine_id].backend.adapters is not None:
                told = replace(status, state=State.STARTING, detail="its adapters are being loaded")
                await self._fleet.report(engine_id, told)
                await self._equipment.equip(engine_id, status)
            await self._tuner.before_traffic(engine_id, status)
        except Exception:  # noqa: BLE001 - named boundary: logged; a bug there does not keep the base model away
            self._log_traceback(engine_id)
        if self.lives[engine_id].backend.adapters is not None:
            self._equipment.ready(engine_id)
        self.on_demand.serves(engine_id)
        await self._report(engine_id, status)

    async def _end_equipping(self, engine_id: str) -> None:
        if task := self._equipping.pop(engine_id, None):
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self, engine_id: str, life: EngineLife) -> None:
        """The task supervisor's boundary: a bug in one engine's life must not look like an engine that is fine.

        Afterwards it rests as failed and can be restarted.
        """
        is_done = False
        while not is_done:
            try:
                await life.run()
                is_done = True
            except Exception:  # noqa: BLE001 - named boundary: logged, and shown as the engine's state
                self._log_traceback(engine_id)
                life.status = replace(
                    life.status, state=State.FAILED, detail="internal error, its traceback is in the log"
                )
                await self._announce(engine_id)(life.status)
                is_done = self._is_stopping
        life.log.close()

    def _log_traceback(self, engine_id: str) -> None:
        for line in traceback.format_exc().splitlines():
            self.lives[engine_id].log.add(f"(control) {line}")


class _Times:
    """One engine's `backends.ties.Times`."""

    def __init__(self, times: StartTimes, key: str) -> None:
        self._times = times
        self._key = key

    def last(self, what: str) -> float | None:
        return self._times.last(f"{what} {self._key}")

    def note(self, what: str, seconds: float) -> None:
        self._times.note(f"{what} {self._key}", seconds)


def _key(pool: Pool) -> str:
    """Engines that start alike have the same."""
    options = json.dumps(pool.options, sort_keys=True, default=str)
    return f"{pool.engine} {pool.model} {hashlib.sha256(f'{pool.python} {options}'.encode()).hexdigest()[:12]}"


def _needs(plan: Plan | None, index: int) -> dict[str, int]:
    """Bytes by device of the pool's engine `index`; what all share counts for the first."""
    if plan is None:
        return {}
    return {use.device: use.total_bytes - (use.shared_bytes if index else 0) for use in plan.uses}


def _sleep_problem(pool: Pool, backend: Backend) -> str:
    if not pool.sleep_level or pool.sleep_level in (levels := backend.sleeps.levels if backend.sleeps else ()):
        return ""
    can = (
        f"it can at level {', '.join(map(str, levels))}"
        if levels
        else "such an engine, as it is configured, cannot sleep"
    )
    return f"sleep_level: {pool.sleep_level}: {can}; with 0 it stops when it is idle"


def _spec(model: Model, pool: Pool) -> PoolSpec:
    return PoolSpec(
        kind=pool.engine,
        served_name=model.name,
        model=pool.model,
        options=pool.options,
        python=pool.python,
        replicas=pool.replicas,
        start_timeout_s=pool.start_timeout_s,
        base_url=pool.base_url,
        api_key=pool.api_key or "",
        capabilities=pool.capabilities,
    )
