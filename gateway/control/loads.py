"""The adapters of one launch of one engine: the only one that loads, proves and frees there. A restarted engine gets a new one.

absent --load--> loaded --proof--> held: in the snapshot, serves
                   |  failed
                   +-----> freed, and quarantined until the engine is restarted or the version is loaded anew by command

What was proven in this launch before is named in the snapshot as soon as it is loaded: requests are sent while it is recognised, and
their answers not read before it is.

held --out of the snapshot, every worker knows--> freed once the engine's requests that use it have ended
       <--they do not end in time, the engine serves it again--
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from backends.adapter.golden import Golden, GoldenError
from backends.base import AdapterCalls, Address, Call, Fetch, HeldAdapter, Identity
from backends.errors import AdapterRefused, BackendError, NoSlot
from gateway.control import proving
from gateway.control.desired import EngineProof, Version
from gateway.control.failpoints import failpoint
from gateway.control.library import Library
from gateway.control.proving import Bench, Proof
from gateway.control.residency import Held

UNLOAD_S = 30.0
"""How long running requests may keep a victim; after that it stays, and the load fails for now."""
NOTICE_S, LOOK_S = 5.0, 0.05
"""How long an engine may take to notice that nobody waits for an unloading any more, and how often it is asked."""
RETRY_S, REFUSED_RETRY_S = 2.0, 30.0
FULL_RETRY_S = 5.0
HEAD_START_S = 0.002
"""An engine's step begins with whoever comes first. Where that is the text by which a version is recognised, which is short, it is known
when the request's own step ends; the other way round it would take a step more."""
T = TypeVar("T")


class LoadFailed(Exception):
    """Why a version is not on an engine, in words; `retry_s` None: not before something is done about it."""

    def __init__(self, message: str, retry_s: float | None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_s = retry_s


class Surroundings(Protocol):
    """What one engine's adapters ask of all."""

    library: Library

    async def publish(self) -> object:
        """Until every worker decides from what is held now."""
        ...

    def publish_soon(self) -> None: ...

    def victim(self, loads: Loads, held: Sequence[Held], spared: frozenset[str]) -> str | None: ...
    def last_use(self, name: str) -> int: ...
    async def siblings(self, loads: Loads, version: Version) -> Mapping[str, Golden]: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """What an engine holds lasts as long as this is the same."""

    num_restarts: int
    ready_since: float | None
    """It begins anew with a wake."""
    address: Address


@dataclass(frozen=True, slots=True)
class Wire:
    """How the engine is reached, in this launch."""

    calls: AdapterCalls
    call: Call
    fetch: Fetch
    base: str
    """The name under which it knows the model itself."""


class Loads:
    """Loads happen one after another, in the order in which they were asked for."""

    def __init__(
        self,
        engine_id: str,
        model: str,
        launch: Launch,
        identity: Identity,
        num_slots: int,
        wire: Wire,
        around: Surroundings,
    ) -> None:
        self.engine_id = engine_id
        self.model = model
        self.launch = launch
        self.identity = identity
        self.num_slots = num_slots
        self.held: dict[str, Proof] = {}
        """Resident and proven here; the snapshot says just this."""
        self.failed: dict[str, Proof] = {}
        self.unproven: set[str] = set()
        """Loaded once more, and not recognised yet: the snapshot says this, too."""
        self.num_pending = 0
        """Loads that wait or go on."""
        self._leaving: set[str] = set()
        """On the engine, or perhaps, but not held."""
        self._wire = wire
        self._around = around
        self._lock = asyncio.Lock()
        self._end = asyncio.get_running_loop().create_future()
        self._bench = Bench(self._score, wire.base)
        self._soiled: set[str] = set()
        """What answered requests under these names was something else: what the engine cached of that may be there still."""

    def close(self) -> None:
        """The engine is gone, or its launch is over: nothing is held any more, whoever waits for it is told."""
        self.held.clear()
        self.unproven.clear()
        if not self._end.done():
            self._end.set_result(None)

    @property
    def is_closed(self) -> bool:
        return self._end.done()

    def proofs(self, name: str) -> list[EngineProof]:
        """What is known of a version here."""
        if name in self.held:
            return [EngineProof(self.engine_id, True, self.held[name].state, self.held[name].detail)]
        return [EngineProof(self.engine_id, False, p.state, p.detail) for p in [self.failed.get(name)] if p]

    async def bring(self, version: Version, spared: frozenset[str] = frozenset()) -> Proof:
        """Load and prove it, unless it is held; for that others may leave, but not the `spared`. Raises LoadFailed."""
        if version.name in self.held:
            return self.held[version.name]
        self.num_pending += 1
        try:
            async with self._lock:
                return await self._bring(version, spared)
        finally:
            self.num_pending -= 1

    async def attest(self, version: Version) -> None:
        """Prove what was held without proof, if it has a reference now. Raises LoadFailed."""
        async with self._lock:
            held = self.held.get(version.name)
            if held is None or held.state != proving.UNATTESTED:
                return
            proof = await self._prove(version, await self._golden(version))
            if proof.state == proving.FAILED:
                self.failed[version.name] = proof
                if version.name in self.held:
                    await self._evict(version.name)
            elif version.name in self.held:
                self.held[version.name] = proof
                await self._around.publish()

    def forgive(self, name: str) -> None:
        """A quarantine ends, where loading it anew may help."""
        if name not in self._soiled:
            self.failed.pop(name, None)

    def disown(self, names: Iterable[str]) -> None:
        """They are not held; the next check frees them."""
        for name in names:
            del self.held[name]
            self._leaving.add(name)

    async def free(self, name: str) -> None:
        """Take it out of the snapshot, then off the engine. Raises LoadFailed where running requests keep it."""
        async with self._lock:
            self.forgive(name)
            if name in self.held:
                await self._evict(name)
            elif name in self._leaving:
                await self._unload(name)

    async def check(self) -> None:
        """Believe the engine: what it does not have is not held, and what it should not have is freed. Raises LoadFailed."""
        async with self._lock:
            await self._compare()

    # With the lock ----------------------------------------------------------------------------------------------------

    async def _bring(self, version: Version, spared: frozenset[str]) -> Proof:
        name = version.name
        if name in self.held:
            return self.held[name]
        if name in self.failed:
            raise self._quarantined(name)
        path = await self._around.library.file(version, self._wire.calls.file_name)
        if not isinstance(path, Path):
            raise LoadFailed(path, None)
        golden = await self._golden(version)
        if name not in self._leaving:
            await self._make_room(spared)
        await self._load(name, path, spared)
        failpoint("reconcile.loaded")
        try:
            proof = await self._prove_openly(version, golden)
        except LoadFailed:
            await self._try_unload(name)
            raise
        if proof.state == proving.FAILED:
            self.failed[name] = proof
            await self._try_unload(name)
            raise self._quarantined(name)
        failpoint("reconcile.proven")
        self._require_open()
        self._leaving.discard(name)
        self.held[name] = proof
        await self._around.publish()
        return proof

    async def _make_room(self, spared: frozenset[str]) -> None:
        """One free slot."""
        if len(self.held) + len(self._leaving) < self.num_slots:
            return
        running = await self._compare()
        while len(self.held) + len(self._leaving) >= self.num_slots:
            held = [Held(name, self._around.last_use(name), running.get(name, 0)) for name in self.held]
            name = self._around.victim(self, held, spared)
            if name is None:
                raise LoadFailed(
                    f"all {self.num_slots} adapter slots of {self.engine_id} are taken for good", FULL_RETRY_S
                )
            await self._evict(name)

    async def _compare(self) -> Mapping[str, int]:
        """Returns the running requests of what the engine has. What should not be there and is still used is left for another time."""
        resident = await self._resident()
        failpoint("reconcile.listed")
        lost = [name for name in self.held if name not in resident or resident[name].is_leaving]
        for name in lost:
            del self.held[name]
        self._leaving = {name for name in resident if name not in self.held}
        if lost:
            await self._around.publish()
        for name in sorted(self._leaving):
            if not resident[name].num_running:
                await self._unload(name)
        return {name: adapter.num_running for name, adapter in resident.items()}

    async def _evict(self, name: str) -> None:
        proof = self.held.pop(name)
        self._leaving.add(name)
        await self._around.publish()
        failpoint("reconcile.evicted")
        try:
            await self._unload(name)
        except LoadFailed:
            await self._restore(name, proof)
            if name in self.held or name in self._leaving:
                raise

    async def _restore(self, name: str, proof: Proof) -> None:
        """It did not leave: what the engine still has is what was proven."""
        if name in self.failed:
            return
        with suppress(LoadFailed):
            if await self._stays(name) and not self.is_closed:
                self._leaving.discard(name)
                self.held[name] = proof
                await self._around.publish()

    async def _stays(self, name: str) -> bool:
        """Whether the engine serves it again."""
        end_s = time.monotonic() + NOTICE_S
        while found := (await self._resident()).get(name):
            if not found.is_leaving or time.monotonic() >= end_s:
                return not found.is_leaving
            await asyncio.sleep(LOOK_S)
        self._leaving.discard(name)
        return False

    async def _unload(self, name: str) -> None:
        self._leaving.add(name)
        await self._ask(self._wire.calls.unload(self._wire.call, name, UNLOAD_S))
        self._leaving.discard(name)

    async def _try_unload(self, name: str) -> None:
        """What does not go now takes a slot until it is looked at again."""
        with suppress(LoadFailed):
            await self._unload(name)

    async def _load(self, name: str, path: Path, spared: frozenset[str]) -> None:
        try:
            await self._load_once(name, path)
        except LoadFailed as exc:
            if not isinstance(exc.__cause__, NoSlot):
                raise
            await self._compare()  # strangers took it
            await self._make_room(spared)
            await self._load_once(name, path)

    async def _load_once(self, name: str, path: Path) -> None:
        self._leaving.add(name)  # until it is proven, what the engine has under this name is nobody's
        try:
            await self._ask(self._wire.calls.load(self._wire.call, name, path))
        except LoadFailed as exc:
            if isinstance(exc.__cause__, AdapterRefused):
                self._leaving.discard(name)
            raise

    async def _golden(self, version: Version) -> Golden | None:
        try:
            return await self._around.library.golden(version)
        except GoldenError as exc:
            raise LoadFailed(f"it cannot be proven: {exc}", None) from exc

    async def _prove_openly(self, version: Version, golden: Golden | None) -> Proof:
        """`_prove`, which the workers know of where it will be short. Where it does not end well, they have called their requests back."""
        name = version.name
        if not self._bench.knows(name, golden):
            return await self._prove(version, golden)
        self.unproven.add(name)
        telling = asyncio.get_running_loop().call_later(HEAD_START_S, self._around.publish_soon)
        state = ""
        try:
            proof = await self._prove(version, golden)
            state = proof.state
            return proof
        finally:
            telling.cancel()
            self.unproven.discard(name)
            if state == proving.FAILED:
                self._soiled.add(name)
            if state in ("", proving.FAILED):
                await self._around.publish()

    async def _prove(self, version: Version, golden: Golden | None) -> Proof:
        siblings = functools.partial(self._around.siblings, self, version)
        return await self._ask(self._bench.prove(version.name, golden, siblings))

    # The engine -------------------------------------------------------------------------------------------------------

    async def _resident(self) -> Mapping[str, HeldAdapter]:
        return await self._ask(self._wire.calls.resident(self._wire.fetch))

    async def _score(self, model: str, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        return await self._wire.calls.score(self._wire.call, model, texts)

    async def _ask(self, question: Awaitable[T]) -> T:
        """The engine's answer, or LoadFailed, at the latest when its launch is over."""
        task = asyncio.ensure_future(question)
        try:
            await asyncio.wait({task, self._end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen, also where the launch is over
        self._require_open()
        try:
            return task.result()
        except AdapterRefused as exc:
            retry_s = FULL_RETRY_S if isinstance(exc, NoSlot) else REFUSED_RETRY_S
            raise LoadFailed(f"{self.engine_id}: {exc}", retry_s) from exc
        except BackendError as exc:
            raise LoadFailed(f"{self.engine_id} does not answer: {exc}", RETRY_S) from exc

    def _require_open(self) -> None:
        if self.is_closed:
            raise LoadFailed(f"{self.engine_id} ended or was restarted meanwhile", RETRY_S)

    def _quarantined(self, name: str) -> LoadFailed:
        fix = f"; `forgegate engines restart {self.engine_id}`" if name in self._soiled else ""
        return LoadFailed(f"it failed its proof on {self.engine_id}: {self.failed[name].detail}{fix}", None)


def start(coroutine: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]], name: str) -> asyncio.Task[T]:
    """As a task that is kept until it is done."""
    task = asyncio.create_task(coroutine, name=name)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
