"""The way of an adapter into the gateway: received, checked and converted, referenced, made durable, proven, served by its alias.

    upload -> ingest (child) -> golden (child) -> Adapters.add -> Adapters.prove -> Adapters.point

One job per upload. What it makes is named by digest, so the same upload twice, or one that was broken off anywhere, is harmless:
publish again. A client that goes away before its upload is whole leaves nothing; after that its job goes on to the end without it.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from backends.adapter.manifest import Manifest
from backends.base import Identity
from backends.errors import BackendError
from gateway import errors
from gateway import snapshot as wire
from gateway.config import NAME
from gateway.control.basefacts import BaseFacts, Bases
from gateway.control.desired import Change, EngineProof, ProofReport, VersionState
from gateway.control.failpoints import failpoint
from gateway.control.ingestion import Ingestion, PublishFailed, Stored
from gateway.control.spool import Spool

MAX_JOBS = 4
"""Uploads and publications at the same time; a further one is told to come again."""
MAX_WORKING = 1
"""Of them, how many check, convert and compute at the same time: engines need the processors, too."""
BEAT_S = 5.0
"""A client hears from its job at least this often."""
BASE_WAIT_S = 120.0
"""For engines that have only just been started, and are still reading their weights."""
BASE_POLL_S = 0.2
ENGINE_WAIT_S = 120.0
"""For one that can load and prove it."""
MAX_RETRY_S = 2.0
Event = dict[str, Any]
FAILED, UNATTESTED = "failed", "unattested"
Identities = Callable[[str], Sequence[Identity]]
"""What the engines of a model have told of their weights so far."""


class Core(Protocol):
    """What a publication asks of the owner of versions and aliases (`gateway.control.adapters`)."""

    def versions(self) -> tuple[VersionState, ...]: ...
    async def add(self, manifest: Manifest, name: str, model: str, who: str) -> str: ...
    async def prove(self, version: str) -> ProofReport: ...
    async def point(
        self, alias: str, shares: Sequence[wire.Share], who: str, reason: str = "", force: str = ""
    ) -> Change: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for; `name` is the alias, `force` a reason to move it against the gate."""

    name: str
    model: str
    who: str
    is_candidate_only: bool = False
    force: str = ""


@dataclass(slots=True)
class Stages:
    """Tells which one begins, and keeps what each took."""

    tell: Callable[[Event], None]
    clock: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        self.tell({"event": "progress", "stage": name, "text": text})
        began = self.clock()
        try:
            yield
        finally:
            self.add(name, self.clock() - began)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 4)


class Job:
    """One publication. Whoever follows it hears everything from its beginning, whenever they come."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.error: errors.GatewayError | None = None
        """Once it is over: why it came to nothing."""
        self._events: list[Event] = []
        self._grown = asyncio.Event()
        self._is_over = False

    def tell(self, event: Event) -> None:
        self._events.append(event)
        self._is_over = event.get("event") != "progress"
        self._grown.set()
        self._grown = asyncio.Event()

    def fail(self, error: errors.GatewayError) -> None:
        self.error = error
        self.tell(error_event(error))

    async def outcome(self) -> Event:
        """The last event, `published`. Raises GatewayError where it is `error`."""
        async for event in self.follow():
            last = event
        if self.error is not None:
            raise self.error
        return last

    async def follow(self) -> AsyncIterator[Event]:
        """All events, the last one repeated every few seconds while nothing new comes."""
        told: Event | None = None
        at = 0
        while True:
            grown = self._grown
            for event in self._events[at:]:
                told = event
                yield event
            at = len(self._events)
            if self._is_over:
                return
            try:
                async with asyncio.timeout(BEAT_S):
                    await grown.wait()
            except TimeoutError:
                if told is not None:
                    yield told


@dataclass(slots=True)
class _Admission:
    is_taken: bool = False


class Publisher:
    """Owns the jobs."""

    def __init__(
        self,
        adapters: Core,
        bases: Bases,
        identities: Identities,
        ingestion: Ingestion,
        spool: Spool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapters = adapters
        self._bases = bases
        self._identities = identities
        self._ingestion = ingestion
        self._spool = spool
        self._clock = clock
        self._num_jobs = 0
        self._turn = asyncio.Semaphore(MAX_WORKING)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Before the first job: what killed ones left is removed."""
        self._spool.clear()
        self._ingestion.store.sweep()
        self._ingestion.remove_strays(self._known())

    async def close(self) -> None:
        """Jobs end where they are, their children with them; each step is whole or has not been."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)

    def checked(self, order: Order) -> Order:
        """With its model. Raises BadRequest, ModelNotFound, Conflict."""
        model = self._bases.model_of(order.model)
        require_alias_name(order.name)
        if order.name in self._bases.names:
            raise errors.Conflict(
                f"{order.name!r} is the name of a model: choose another for the adapter", param="name"
            )
        return Order(order.name, model, order.who, order.is_candidate_only, order.force)

    async def upload(self, order: Order, body: AsyncIterator[bytes], num_bytes: int | None) -> Job:
        """Receive it; its job runs when this returns. Raises GatewayError; what `body` raises when the client goes away."""
        order = self.checked(order)
        with self._admitted() as admission:
            began = self._clock()
            self._spool.check(num_bytes)
            archive = await self._spool.receive(body)
            return self._begin(order, archive, admission, self._clock() - began)

    def from_folder(self, order: Order, folder: Path) -> Job:
        """A folder of this machine, which the caller has found to be allowed. It is only read. Raises GatewayError."""
        order = self.checked(order)
        with self._admitted() as admission:
            return self._begin(order, folder, admission, None)

    @contextmanager
    def _admitted(self) -> Iterator[_Admission]:
        """Counted until the block fails, or the job that took over is done. Raises TooManyRequests."""
        if self._num_jobs >= MAX_JOBS:
            raise errors.TooManyRequests(f"{MAX_JOBS} adapters are being published already", retry_after_s=10)
        admission = _Admission()
        self._num_jobs += 1
        try:
            yield admission
        finally:
            if not admission.is_taken:
                self._num_jobs -= 1

    def _begin(self, order: Order, source: Path, admission: _Admission, upload_s: float | None) -> Job:
        job = Job(order)
        stages = Stages(job.tell, self._clock)
        if upload_s is not None:
            stages.add("upload", upload_s)
        task = asyncio.create_task(
            self._run(job, source, stages, is_ours=upload_s is not None), name=f"publish {order.name}"
        )
        admission.is_taken = True
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, job: Job, source: Path, stages: Stages, is_ours: bool) -> None:
        """The job's boundary: it ends in exactly one event, whatever happens."""
        error: errors.GatewayError = errors.InternalError("the publication was broken off: the gateway is stopping")
        done: Event | None = None
        try:
            done = await self._publish(job.order, source, stages)
        except errors.GatewayError as exc:
            error = exc
        except BackendError as exc:
            error = PublishFailed(str(exc))
        except Exception:  # noqa: BLE001 - named boundary: logged, and told as what it is
            traceback.print_exc()
            error = errors.InternalError("internal error; the traceback is in the log of `forgegate serve`")
        finally:
            self._num_jobs -= 1
            if is_ours:
                self._spool.drop(source)
            job.tell(done) if done is not None else job.fail(error)

    async def _publish(self, order: Order, source: Path, stages: Stages) -> Event:
        with stages.stage("queue", "waiting for its turn"):
            await self._turn.acquire()
        try:
            with stages.stage("base", f"asking for the weights of {order.model}"):
                base = await self._base(order.model)
            stored = await self._ingest(base, source, stages)
            failpoint("publish.stored")
            with stages.stage("reference", "looking for its reference"):
                reference = await self._ingestion.reference(base, stored.manifest.digest, stages.tell)
        finally:
            self._turn.release()
        version = await self._record(order, stored, stages)
        return await self._serve(order, version, stored, reference.note, stages)

    async def _ingest(self, base: BaseFacts, source: Path, stages: Stages) -> Stored:
        began = self._clock()
        stored = await self._ingestion.ingest(base, source, stages.tell)
        for name, seconds in stored.seconds.items():
            stages.add(name, seconds)
        # What the child's stages do not have: its interpreter's start.
        stages.add("child", max(0.0, self._clock() - began - sum(stored.seconds.values())))
        return stored

    async def _base(self, model: str) -> BaseFacts:
        """Raises NoEngineReady, ModelUnusable."""
        deadline = self._clock() + BASE_WAIT_S
        while not any(item.digest for item in self._identities(model)) and self._clock() < deadline:  # noqa: ASYNC110 - fleet.changed is another's
            await asyncio.sleep(BASE_POLL_S)
        return await asyncio.to_thread(self._bases.facts, model, self._identities(model))

    async def _record(self, order: Order, stored: Stored, stages: Stages) -> str:
        """From the disk into the database; the version's name. Raises GatewayError."""
        digest = stored.manifest.digest
        try:
            with stages.stage("candidate", "making it durable"):
                version = await self._adapters.add(stored.manifest, order.name, order.model, order.who)
        except errors.GatewayError:
            if (
                self._num_jobs == 1
            ):  # another one may be about to make the same version known; else the next start removes it
                await asyncio.to_thread(self._ingestion.remove_strays, self._known(), [digest])
            raise
        self._ingestion.mark(digest)
        return version

    def _known(self) -> set[str]:
        return {version.digest for version in self._adapters.versions()}

    async def _serve(self, order: Order, version: str, stored: Stored, note: str, stages: Stages) -> Event:
        """From the disk to the engines. Raises GatewayError."""
        manifest = stored.manifest
        with stages.stage("proof", f"loading {version} and proving it"):
            report = await self._prove(version, stages)
        if report.proof == FAILED:
            raise ProofFailed(version, report.engines)
        failpoint("publish.proven")
        alias, warnings = None, [str(warning["message"]) for warning in manifest.warnings]
        if not order.is_candidate_only:
            with stages.stage("alias", f"letting {order.name} serve it"):
                change = await self._adapters.point(
                    order.name, [wire.Share(version)], order.who, reason="published", force=order.force
                )
            alias = change.alias
            warnings += [change.warning] if change.warning else []
        return {
            "event": "published", "name": order.name, "version": version, "digest": manifest.digest, "model": order.model,
            "is_new": stored.is_new, "proof": report.proof, "alias": alias,
            "state": next((state.state for state in self._adapters.versions() if state.name == version), ""),
            "warnings": warnings,
            "notes": [*stored.notes, *_notes(note, report)],
            "seconds": stages.seconds, "total_s": round(sum(stages.seconds.values()), 4),
        }  # fmt: skip

    async def _prove(self, version: str, stages: Stages) -> ProofReport:
        """Engines may only just be starting, or be full for the moment. Raises GatewayError."""
        deadline = self._clock() + ENGINE_WAIT_S
        while True:
            try:
                return await self._adapters.prove(version)
            except errors.NoEngineReady as exc:
                if self._clock() >= deadline:
                    raise
                stages.tell({"event": "progress", "stage": "proof", "text": f"waiting: {exc}"})
                await asyncio.sleep(min(exc.retry_after_s or 1, MAX_RETRY_S))


class ProofFailed(errors.Conflict):
    """Engines that load it do not serve what was published: the version stays a candidate, no alias moves."""

    code = "proof_failed"

    def __init__(self, version: str, engines: Sequence[EngineProof]) -> None:
        reasons = "; ".join(f"{engine.engine}: {engine.detail}" for engine in engines if engine.proof == FAILED)
        super().__init__(
            f"{version} is loaded, but not what is served, so it stays a candidate: {reasons or 'no engine proved it'}"
        )


def _notes(note: str, report: ProofReport) -> list[str]:
    """What a user should know of the proof: why there is no reference, and what an engine could not tell apart."""
    told = [engine for engine in report.engines if engine.detail and not (note and engine.proof == UNATTESTED)]
    return [*([note] if note else []), *(f"{engine.engine}: {engine.proof}: {engine.detail}" for engine in told)]


def require_alias_name(name: str) -> None:
    """Raises BadRequest."""
    if not NAME.fullmatch(name):
        raise errors.BadRequest(
            f"name {name!r}: letters, digits and . _ - / only, beginning with a letter or digit, 96 at most",
            param="name",
        )


def error_event(error: errors.GatewayError) -> Event:
    """The last line of a publication that did not succeed."""
    told = json.loads(errors.envelope(error))
    problems = getattr(error, "problems", None)
    return {"event": "error", **told, **({"problems": problems} if problems else {}), "status": error.status}
