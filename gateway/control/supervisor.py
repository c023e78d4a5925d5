"""The engines of a configuration: built, started, watched, stopped. One `EngineLife` each."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from backends import build
from backends.base import Backend, Load, Places, PoolSpec
from backends.errors import BackendError
from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.probe import Prober
from backends.process import Launcher
from backends.status import State, Status
from gateway.config import Config, Model, Pool
from gateway.control.fleet import Fleet, Member
from gateway.home import Home

LOAD_TIMEOUT_S = 1.0


class Equipment(Protocol):
    """What an engine must hold before it takes traffic: `gateway.control.adapters`."""

    def add_engine(self, engine_id: str, model: str, backend: Backend) -> None: ...
    async def equip(self, engine_id: str, status: Status) -> None: ...
    def ready(self, engine_id: str) -> None: ...
    def down(self, engine_id: str) -> None: ...


class Observer(Protocol):
    """Told what people should see."""

    def engine(self, engine_id: str, status: Status) -> None: ...


def backends_of(config: Config, home: Home) -> list[tuple[Model, Pool, Backend]]:
    """Every pool's backend. Raises BadSpec."""
    places = Places(home.models, home.envs)
    return [(model, pool, build(_spec(model, pool), places)) for model in config.models for pool in model.pools]


class Supervisor:
    """Owns the engines' tasks."""

    def __init__(
        self, launcher: Launcher, prober: Prober, fleet: Fleet, home: Home, observer: Observer, equipment: Equipment
    ) -> None:
        self.lives: dict[str, EngineLife] = {}
        self._launcher = launcher
        self._prober = prober
        self._fleet = fleet
        self._home = home
        self._observer = observer
        self._equipment = equipment
        self._equipping: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def add(self, model: Model, pool: Pool, backend: Backend) -> None:
        """The pool's engines, not yet started; named `<model>-<n>` over all pools of the model."""
        for _ in range(pool.replicas):
            engine_id = f"{model.name}-{len(self._fleet.of_model(model.name))}"
            self._fleet.add(Member(engine_id, len(self.lives), pool.engine, model.name, backend.capabilities))
            self.lives[engine_id] = self._life(engine_id, backend)
            self._equipment.add_engine(engine_id, model.name, backend)

    def start(self) -> None:
        for engine_id, life in self.lives.items():
            self._tasks.append(asyncio.create_task(self._watch(engine_id, life), name=engine_id))
            life.start()

    def trouble(self, engine_id: str) -> None:
        """A worker could not talk to it."""
        if engine_id in self.lives:
            self.lives[engine_id].probe_now()

    async def settled(self) -> None:
        """Until every engine's first start came to an end."""
        await asyncio.gather(*(life.settled() for life in self.lives.values()))
        if self._equipping:
            await asyncio.wait(self._equipping.values())

    async def stop(self, grace_s: float | None = None) -> None:
        """All engines, side by side; until they are gone. Called again, it hurries."""
        self._is_stopping = True
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

    def _life(self, engine_id: str, backend: Backend) -> EngineLife:
        log = LogRing(self._home.logs / f"{engine_id.replace('/', '_')}.log")
        return EngineLife(
            backend, self._launcher, self._prober, log, self._announce(engine_id),
            refuse=lambda identity: self._fleet.claim_weights(engine_id, identity),
        )  # fmt: skip

    def _announce(self, engine_id: str) -> Callable[[Status], Awaitable[None]]:
        async def announce(status: Status) -> None:
            await self._end_equipping(engine_id)
            if status.state is State.READY and self.lives[engine_id].backend.adapters is not None:
                # In a task of its own: an engine that dies or is stopped meanwhile is not kept waiting.
                task = asyncio.create_task(self._equip(engine_id, status), name=f"equip {engine_id}")
                self._equipping[engine_id] = task
                return
            self._equipment.down(engine_id)
            await self._report(engine_id, status)

        return announce

    async def _report(self, engine_id: str, status: Status) -> None:
        self._observer.engine(engine_id, status)
        await self._fleet.report(engine_id, status)

    async def _equip(self, engine_id: str, status: Status) -> None:
        """The engine serves; it takes traffic once it holds the adapters that it should."""
        await self._fleet.report(
            engine_id, replace(status, state=State.STARTING, detail="its adapters are being loaded")
        )
        try:
            await self._equipment.equip(engine_id, status)
        except Exception:  # noqa: BLE001 - named boundary: logged; a bug there does not keep the base model away
            self._log_traceback(engine_id)
        self._equipment.ready(engine_id)
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
