"""Which engine holds which version: brought where it is wanted, proven there, sent away when room is needed.

    want (a worker), point, prove (commands), reconcile (an engine that is up, an alias that moved) --bring--> Loads of one engine

Whoever wants the same version at the same time waits for the same load. What the snapshot says is read off the engines' `Loads`.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from backends.adapter.golden import Golden, GoldenError
from backends.base import Address, Backend, Call, Fetch, Identity
from backends.errors import AdapterRefused
from backends.status import Status
from gateway.control import equip, residency
from gateway.control.desired import Desired, Version
from gateway.control.library import Library
from gateway.control.loads import Launch, LoadFailed, Loads, Wire, start
from gateway.control.proving import UNATTESTED, Proof
from gateway.control.residency import Claims, Held, Replica
from gateway.control.wants import Refusals

FETCH_S = 5.0
MAX_SIBLINGS = 8
BUG_RETRY_S = 30.0
SUMMON_LOOK_S = 0.5


Publish = Callable[[], Awaitable[object]]


class Reach(Protocol):
    """How engines are asked: `backends.probe.Prober`."""

    def fetch(self, address: Address, secret: str, timeout_s: float) -> Fetch: ...
    def call(self, address: Address, secret: str) -> Call: ...


@dataclass(frozen=True, slots=True)
class Site:
    """An engine that can hold adapters, over all its launches."""

    model: str
    backend: Backend


class Residents:
    """The one that decides what is loaded and freed. `publish` returns once every worker decides from the present state."""

    def __init__(
        self,
        library: Library,
        prober: Reach,
        desired: Callable[[], Desired],
        publish: Publish,
        must_be_attested: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.library = library
        self.loads: dict[str, Loads] = {}
        """By engine, of the present launch; absent while it is not up."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self.refusals = Refusals(self.publish_soon, clock)
        self.summon: Callable[[str], bool] = lambda _: False
        """Start an engine of a model, if one is to be had on demand; whether one comes."""
        self.summon_wait_s = 0.0
        self._prober = prober
        self._desired = desired
        self._publish = publish
        self._must_be_attested = must_be_attested
        self._sites: dict[str, Site] = {}
        self._paused: dict[str, Loads] = {}
        """Of engines that drain: a drain may be taken back."""
        self._ready: set[str] = set()
        self._arrived = asyncio.Event()
        self._num_uses = 0
        self._last_use: dict[str, int] = {}
        self._kept: Counter[str] = Counter()
        self._freed: set[str] = set()
        """By command: not brought back before somebody asks for them."""
        self._bringing: dict[str, asyncio.Task[Proof]] = {}
        self._answering: set[str] = set()
        self._asked_again: set[str] = set()
        self._reconciler = equip.Reconciler(self)

    def add_engine(self, engine_id: str, model: str, backend: Backend) -> None:
        """Before the start only."""
        if backend.adapters is not None and backend.num_adapter_slots > 0:
            self._sites[engine_id] = Site(model, backend)

    # Engines ----------------------------------------------------------------------------------------------------------

    async def up(self, engine_id: str, status: Status) -> None:
        """Its launch answers, and takes no traffic yet: returns when it holds what it should, or that took too long."""
        paused = self._paused.pop(engine_id, None)
        self.down(engine_id)
        site = self._sites.get(engine_id)
        if site is None:
            return
        loads = self._new_loads(engine_id, site, status)
        if paused is not None and paused.launch == loads.launch:
            loads = paused
            loads.disown([name for name in loads.held if name in self._freed or name not in self._desired().versions])
        elif paused is not None:
            paused.close()
        self.loads[engine_id] = loads
        await self._reconciler.equip(loads)

    def ready(self, engine_id: str) -> None:
        """From here on it takes traffic: what was refused may be had now."""
        self._arrived.set()
        if engine_id in self.loads:
            self._ready.add(engine_id)
            for version in self._of_model(self.loads[engine_id].model):
                self.refusals.drop(version.name)

    def pause(self, engine_id: str) -> None:
        """It takes no traffic, and may yet again in this launch: what it holds is kept for that."""
        self._ready.discard(engine_id)
        if loads := self.loads.pop(engine_id, None):
            self._paused[engine_id] = loads

    def down(self, engine_id: str) -> None:
        """Its launch is over."""
        self.pause(engine_id)
        if loads := self._paused.pop(engine_id, None):
            loads.close()

    def is_at_work(self, engine_id: str) -> bool:
        loads = self.loads.get(engine_id)
        return loads is not None and loads.num_pending > 0

    def trouble(self, engine_id: str) -> None:
        """A worker was told there that an adapter is absent."""
        if loads := self.loads.get(engine_id):
            start(self._check(loads), self.tasks, f"look at the adapters of {engine_id}")

    def of_model(self, model: str) -> list[Loads]:
        return [loads for loads in self.loads.values() if loads.model == model]

    def holders(self, name: str) -> list[Loads]:
        """Engines that take traffic, and hold it."""
        return [
            self.loads[engine] for engine in self.loads if engine in self._ready and name in self.loads[engine].held
        ]

    def num_slots(self, model: str) -> int:
        """Of the replica that has the fewest; 0 where none takes adapters."""
        return min((s.backend.num_adapter_slots for s in self._sites.values() if s.model == model), default=0)

    # Wants ------------------------------------------------------------------------------------------------------------

    def used(self, names: Iterable[str]) -> None:
        """Requests asked for them, in this order."""
        for name in names:
            self._num_uses += 1
            self._last_use[name] = self._num_uses

    def want(self, name: str) -> None:
        """A request waits for it: the end is a snapshot in which an engine holds it, or in which it is refused."""
        if name not in self._desired().versions:
            return
        if name not in self._answering:
            self._answering.add(name)
            start(self._answer(name), self.tasks, f"want {name}")
        elif self.holders(name):  # whoever asks may know of these, and have tried them
            self._asked_again.add(name)

    async def bring(self, name: str, silent: Collection[Loads] = ()) -> Proof:
        """On some engine that takes traffic, but not on the `silent`. Raises LoadFailed."""
        task = self._bringing.get(name)
        if task is None:
            self._bringing[name] = task = start(self._bring(name, silent), self.tasks, f"bring {name}")
            task.add_done_callback(lambda done: (self._bringing.pop(name, None), done.cancelled() or done.exception()))
        return await asyncio.shield(task)

    async def free(self, name: str) -> None:
        """Everywhere, and not brought back before it is asked for. Raises LoadFailed."""
        self._freed.add(name)
        self.refusals.drop(name)
        self.refusals.drop_passing()
        version = self._desired().versions.get(name)
        known = (*self.loads.values(), *self._paused.values())  # one that is paused may be loading it
        places = [loads for loads in known if version is None or loads.model == version.model]
        results = await asyncio.gather(*(loads.free(name) for loads in places), return_exceptions=True)
        for loads, result in zip(places, results, strict=True):
            if isinstance(result, BaseException) and not loads.is_closed:
                raise result

    def forgive(self, name: str) -> None:
        """Quarantines end: it is loaded anew by command."""
        self._freed.discard(name)
        self.refusals.drop(name)
        for loads in (*self.loads.values(), *self._paused.values()):
            loads.forgive(name)

    @contextmanager
    def kept(self, names: Iterable[str]) -> Iterator[None]:
        """They do not leave within the block."""
        held = list(names)
        self._kept.update(held)
        try:
            yield
        finally:
            self._kept.subtract(held)
            self._kept += Counter()

    def reconcile(self, model: str) -> None:
        """Something else should be resident now."""
        for loads in self.of_model(model):
            self._reconciler.kick(loads)

    def refusal(self, version: Version) -> tuple[str, int]:
        """Why no engine will hold it, empty while one may, and when to ask again."""
        lasting = self.library.known_problem(version) or self.mismatch(version)
        return (lasting, 60) if lasting else self.refusals.of(version.name)

    def mismatch(self, version: Version) -> str:
        """Why none of the engines that are up can serve it: they have other weights."""
        told = [self.wrong_base(version, loads) for loads in self.of_model(version.model)]
        return told[0] if told and all(told) else ""

    async def close(self) -> None:
        self.refusals.close()
        for engine_id in {*self.loads, *self._paused}:
            self.down(engine_id)
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=5.0)

    # For one engine's loads -------------------------------------------------------------------------------------------

    def victim(self, loads: Loads, held: Sequence[Held], spared: frozenset[str]) -> str | None:
        return residency.victim(held, self.claims(loads.model), loads.num_slots, spared)

    def last_use(self, name: str) -> int:
        return self._last_use.get(name, 0)

    async def siblings(self, loads: Loads, version: Version) -> Mapping[str, Golden]:
        """References of what the engine holds, too: what it would most likely serve by mistake."""
        found: dict[str, Golden] = {}
        for name in list(loads.held)[-MAX_SIBLINGS:]:
            other = self._desired().versions.get(name)
            if other is None or other.digest == version.digest:
                continue
            with suppress(GoldenError):
                if golden := await self.library.golden(other):
                    found[name] = golden
        return found

    def claims(self, model: str) -> Claims:
        desired = self._desired()
        return Claims(desired.live(model), desired.former(model), desired.pinned(model), frozenset(+self._kept))

    def wanted(self, loads: Loads, hopeless: Collection[str] = ()) -> list[Version]:
        """What an engine should hold without being asked, but for the `hopeless`."""
        elsewhere = {name for other in self.of_model(loads.model) if other is not loads for name in other.held}
        without = {*self._freed, *hopeless}
        without |= {version.name for version in self._of_model(loads.model) if self.wrong_base(version, loads)}
        claims = self.claims(loads.model).without(without)
        names = residency.wanted(claims, self._last_use, elsewhere, loads.num_slots)
        return [self._desired().versions[name] for name in names]

    async def require(self, version: Version) -> None:
        """That it may be loaded at all. Raises LoadFailed."""
        if problem := await self.library.problem(version) or self.mismatch(version):
            raise LoadFailed(problem, None)
        if not self._must_be_attested:
            return
        try:
            golden = await self.library.golden(version)
        except GoldenError as exc:
            raise LoadFailed(f"it cannot be proven: {exc}", None) from exc
        if golden is None:
            raise LoadFailed(
                f"it is {UNATTESTED}, and adapters.require_attestation is set: publish it again where the trainer's environment "
                "is installed (`forgegate install trainer`)", None,
            )  # fmt: skip

    async def publish(self) -> object:
        return await self._publish()

    def publish_soon(self) -> None:
        start(self.publish(), self.tasks, "publish")

    # Inside -----------------------------------------------------------------------------------------------------------

    def _new_loads(self, engine_id: str, site: Site, status: Status) -> Loads:
        assert site.backend.adapters is not None
        fetch = self._prober.fetch(status.address, status.secret, FETCH_S)
        call = self._prober.call(status.address, status.secret)
        base = status.facts.model if status.facts else site.model
        wire = Wire(site.backend.adapters, call, fetch, base)
        launch = Launch(status.num_restarts, status.ready_since, status.address)
        return Loads(engine_id, site.model, launch, status.identity, site.backend.num_adapter_slots, wire, self)

    async def _answer(self, name: str) -> None:
        """A want's end."""
        is_told = False
        try:
            is_told = await self._hold(name)
        except LoadFailed as exc:
            self._refuse(name, exc.message, exc.retry_s)
        except Exception:  # noqa: BLE001 - named boundary: logged, and whoever waits is told
            traceback.print_exc()
            self._refuse(name, "internal error; the traceback is in the log of `forgegate serve`", BUG_RETRY_S)
        self._answering.discard(name)  # whoever asks from here on may know the answer already
        if name in self._asked_again:
            self._asked_again.discard(name)
            self.want(name)
        elif not is_told:
            await self.publish()

    async def _hold(self, name: str) -> bool:
        """Until an engine that answers holds it; returns whether the workers know. Raises LoadFailed."""
        silent = [loads for loads in self.holders(name) if not await self._check(loads)]
        is_told = False  # the worker may have asked by an older snapshot
        while all(loads in silent for loads in self.holders(name)):
            await self.bring(name, silent)
            is_told = True
        return is_told

    def _refuse(self, name: str, reason: str, retry_s: float | None) -> None:
        if name in self._desired().versions and not self.holders(name):
            self.refusals.put(name, reason, retry_s)

    async def _check(self, loads: Loads) -> bool:
        """Returns whether the engine answers."""
        try:
            await loads.check()
        except LoadFailed as exc:
            return isinstance(exc.__cause__, AdapterRefused)  # a stranger that does not leave
        return True

    async def _bring(self, name: str, silent: Collection[Loads]) -> Proof:
        version = self._desired().versions.get(name)
        if version is None:
            raise LoadFailed("it was removed", None)
        await self.require(version)
        await self._await_engine(version.model)
        self._freed.discard(name)
        tried: list[LoadFailed] = []
        for loads in self._places(version, silent):
            try:
                proof = await loads.bring(version)
            except LoadFailed as exc:
                tried.append(exc)
            else:
                self.refusals.drop(name)
                return proof
        if not tried:
            raise LoadFailed(f"no engine of {version.model} is ready", equip.NOT_READY_RETRY_S)
        waits = [exc.retry_s for exc in tried if exc.retry_s is not None]
        raise LoadFailed("; ".join(dict.fromkeys(exc.message for exc in tried)), min(waits, default=None))

    async def _await_engine(self, model: str) -> None:
        """Where none takes traffic, and one is to be had on demand: until it does, or is given up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.summon_wait_s):
                while not any(loads.engine_id in self._ready for loads in self.of_model(model)) and self.summon(model):
                    self._arrived.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._arrived.wait(), SUMMON_LOOK_S)

    def _places(self, version: Version, silent: Collection[Loads]) -> list[Loads]:
        """Engines that may take it, the best first."""
        able = [
            loads
            for loads in self.of_model(version.model)
            if loads.engine_id in self._ready and loads not in silent and not self.wrong_base(version, loads)
        ]
        if holding := [loads for loads in able if version.name in loads.held]:
            return holding
        replicas = [
            Replica(
                loads.engine_id, loads.num_slots, tuple(Held(name, self.last_use(name)) for name in loads.held),
                loads.num_pending,
            )
            for loads in able
        ]  # fmt: skip
        return [self.loads[engine_id] for engine_id in residency.order(replicas, self.claims(version.model))]

    def _of_model(self, model: str) -> list[Version]:
        return [version for version in self._desired().versions.values() if version.model == model]

    def wrong_base(self, version: Version, loads: Loads) -> str:
        """An engine whose weights have no known source is believed where another of its model has the right ones."""
        found = loads.identity
        if not found.digest or found.digest == version.base_digest:
            return ""
        identities: list[Identity] = [other.identity for other in self.of_model(loads.model)]
        if not found.is_source and any(other.digest == version.base_digest for other in identities):
            return ""
        return (
            f"it was made for other weights ({version.base_digest}) than {loads.model} has now ({found.digest}): publish one "
            "that was trained on these"
        )
