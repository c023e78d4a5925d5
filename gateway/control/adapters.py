"""Adapters: the one owner of versions, aliases and pins, and of where they are resident.

    command --> transaction (store) --> the state in memory --> snapshot --> every worker has acknowledged it

A change that fails has not happened. Loads go on beside all of it (`residents`): a move of an alias waits for its own versions only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self

from backends.adapter.manifest import Manifest
from backends.base import Backend
from backends.status import Status
from gateway import errors
from gateway import snapshot as wire
from gateway.control import aliases, proving, verdicts
from gateway.control.aliases import Rules
from gateway.control.desired import AliasState, Change, Desired, ProofReport, Verdict, Version, VersionState, Watch
from gateway.control.failpoints import failpoint
from gateway.control.gate import Move
from gateway.control.inspection import Inspection
from gateway.control.library import Library
from gateway.control.loads import LoadFailed, start
from gateway.control.residents import Reach, Residents
from gateway.control.store import Store, StoreFailed
from gateway.control.telling import Telling

Publish = Callable[[], Awaitable[tuple[int, ...]]]
"""Pushes the present state; returns, once all workers decide from it, the columns of those that had to be replaced."""


class VersionUnusable(errors.Conflict):
    """No engine will serve it before something is done about it; the message says what."""

    code = "adapter_unusable"


class Adapters:
    """Commands raise errors of `gateway.errors`, StoreFailed where the change could not be made durable."""

    def __init__(
        self,
        store: Store,
        library: Library,
        prober: Reach,
        rules: Rules,
        publish: Publish,
        must_be_attested: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._library = library
        self._rules = rules
        self._publish = publish
        self._clock = clock
        self._desired = Desired()
        self._writing = asyncio.Lock()
        self._residents = Residents(library, prober, lambda: self._desired, publish, must_be_attested)
        self._telling = Telling(lambda: self._desired, self._residents, rules.models)
        self._inspection = Inspection(library, lambda: self._desired.versions.values(), self._take_off)

    async def open(self) -> Self:
        """Read the store. Raises StoreFailed."""
        self._desired = await self._store.load()
        return self

    def start(self) -> None:
        """Once workers can be told: versions are held against their files, beside whatever comes next."""
        start(self._examine(), self._residents.tasks, "examine versions")
        self._inspection.start()

    async def inspect(self) -> None:
        """Look at all versions' files now; what is damaged goes off the engines."""
        await self._inspection.round()

    async def close(self) -> None:
        """Loads end where they are; the store is closed."""
        self._inspection.close()
        await self._residents.close()
        await self._store.close()

    # What there is ----------------------------------------------------------------------------------------------------

    def versions(self) -> tuple[VersionState, ...]:
        return self._telling.versions()

    def aliases(self) -> tuple[AliasState, ...]:
        return self._telling.aliases()

    def history(self, alias: str) -> tuple[Change, ...]:
        """Newest first; empty for a name that never was one."""
        return tuple(reversed(self._desired.history.get(alias, ())))

    def verdicts(self, candidate: str = "") -> tuple[Verdict, ...]:
        """Newest first; of one version, or all."""
        found = self._desired.verdicts.values()
        return tuple(verdict for verdict in found if candidate in ("", verdict.candidate))[::-1]

    async def documents(self, candidate: str = "") -> dict[str, str]:
        """Of the same verdicts, as text of JSON, by digest."""
        return await self._store.documents(candidate)

    def snapshot(self) -> tuple[tuple[wire.Adapter, ...], tuple[wire.Alias, ...]]:
        """What workers are told."""
        return self._telling.snapshot()

    # Commands ---------------------------------------------------------------------------------------------------------

    async def add(self, manifest: Manifest, name: str, model: str, who: str) -> str:
        """Make a stored version known, as a candidate; returns its name. What is known already is looked at anew. Raises Conflict."""
        version = Version(
            f"{name}@{manifest.short}", manifest.digest, model, manifest.base.source_digest, manifest.rank, manifest.size_bytes,
            who, self._clock(),
        )  # fmt: skip
        async with self._writing:
            known = self._desired.versions.get(version.name)
            if known is None:
                await self._durable(self._store.add(version), lambda: self._with_version(version))
            elif (known.digest, known.model) != (version.digest, version.model):
                raise errors.Conflict(
                    f"{version.name} is taken, by {known.digest} of model {known.model}: choose another name"
                )
        self._library.forget(version.digest)
        self._residents.forgive(version.name)
        await self._library.problem(version)
        await self._publish()
        return version.name

    async def prove(self, version: str) -> ProofReport:
        """Load and prove it on every engine of its model that has room, on one at least, whatever failed before.

        A proof that fails is in the report. Raises NotFound, VersionUnusable, and NoEngineReady where no engine can load it now.
        """
        found = self._known(version)
        self._residents.forgive(version)
        try:
            await self._residents.require(found)
        except LoadFailed as exc:
            raise _refused(version, exc) from exc
        with self._residents.kept([version]):
            failure = await self._try_bring(version)
            await self._spread(found)
            await self._prove_again(found)
        engines = tuple(proof for loads in self._residents.of_model(found.model) for proof in loads.proofs(version))
        if not engines:
            raise _refused(version, failure or LoadFailed("its engine ended meanwhile", 2.0))
        return ProofReport(version, proving.least([engine.proof for engine in engines]), engines)

    async def point(
        self,
        alias: str,
        shares: Sequence[wire.Share],
        who: str,
        reason: str = "",
        force: str = "",
        verdict: str = "",
    ) -> Change:
        """Let an alias serve one version (flip) or several by weight (split); it is made where there is none.

        Each version is resident and proven on an engine before any request may come. Where it serves just that already, the change that
        led there is returned. `verdict`: digest of the one that allows it, else one that fits is looked for; `force` overrules the
        gate. Raises BadRequest, NotFound, Conflict, VersionUnusable, NoEngineReady.
        """
        move = Move(alias, tuple(shares), who, reason, force, verdict)
        return await self._move(lambda: aliases.point(self._desired, move, self._rules, self._clock()), alias)

    async def rollback(self, alias: str, who: str) -> Change:
        """To what it served before the last change; once more goes back again. Raises as `point` does, Conflict also where it moved
        while that was loaded."""
        return await self._move(lambda: aliases.rollback(self._desired, alias, who, self._clock()), alias)

    async def retreat(self, alias: str, judged: Sequence[wire.Share], reason: str) -> Change:
        """A rollback by the alias's watch. Raises as `rollback` does, Conflict where it does not serve what was `judged` any more."""
        bad = tuple(judged)
        return await self._move(lambda: aliases.retreat(self._desired, alias, bad, reason, self._clock()), alias)

    async def watch(self, alias: str, watch: Watch | None) -> None:
        """Let it go back by itself by this rule, or not any more. Raises NotFound."""
        async with self._writing:
            after = replace(aliases.known(self._desired, alias), watch=watch)
            rest = {**self._desired.aliases, alias: after}
            await self._durable(self._store.watch(alias, watch), lambda: replace(self._desired, aliases=rest))

    async def add_verdict(self, content: bytes, peer: str) -> Verdict:
        """Take in a verdict's document. One that is known stays as it is. Raises BadRequest, NotFound."""
        verdict, text = verdicts.read(content, self._clock(), peer)
        candidate = self._known(verdict.candidate)
        if verdict.base != (base := verdicts.base_of(candidate.model, candidate.base_digest)):
            raise errors.BadRequest(
                f"base: the verdict is on {verdict.base}, and {candidate.name} was trained on {base}", param="base"
            )
        async with self._writing:
            if verdict.digest in self._desired.verdicts:
                return self._desired.verdicts[verdict.digest]
            known = {**self._desired.verdicts, verdict.digest: verdict}
            await self._durable(self._store.add_verdict(verdict, text), lambda: replace(self._desired, verdicts=known))
        return verdict

    async def drop(self, alias: str, who: str) -> Change:
        """The alias goes, its versions stay. Raises NotFound."""
        return await self._commit(lambda: aliases.drop(self._desired, alias, who, self._clock()), alias)

    async def pin(self, version: str) -> None:
        """Keep it loaded on every engine of its model, beginning now. Raises NotFound, Conflict, VersionUnusable."""
        found = self._known(version)
        pinned = {*self._desired.pinned(found.model), version}
        num_slots = self._residents.num_slots(found.model)
        if len(pinned) > num_slots:
            raise errors.Conflict(
                f"an engine of {found.model} holds {num_slots} adapters, and {len(pinned) - 1} are pinned: unpin one first"
            )
        if problem := await self._library.problem(found):
            raise VersionUnusable(f"{version}: {problem}")
        self._residents.forgive(version)
        await self._set_pin(found, True)
        self._residents.reconcile(found.model)

    async def unpin(self, version: str) -> None:
        """Raises NotFound."""
        await self._set_pin(self._known(version), False)
        self._residents.refusals.drop_passing()
        await self._publish()

    async def unload(self, version: str) -> None:
        """Free it on every engine; the next request loads it again. Raises NotFound, Conflict where it is pinned or does not leave."""
        if self._known(version).is_pinned:
            raise errors.Conflict(f"{version} is pinned: unpin it first")
        await self._free(version, "is not freed everywhere")

    async def remove(self, version: str) -> None:
        """Free it, forget it, delete its files. Raises NotFound, Conflict where an alias serves it or would roll back to it, where it is
        pinned, or does not leave an engine: then it is not removed."""
        self._removable(version)
        await self._free(version, "is not removed")
        async with self._writing:
            found = self._removable(version)
            is_last = not any(
                other.digest == found.digest for other in self._desired.versions.values() if other != found
            )
            if is_last:  # before the row goes: killed between them, the next start marks it again
                await self._library.unmark(found.digest)
            rest = {name: other for name, other in self._desired.versions.items() if name != version}
            await self._durable(self._store.remove(version), lambda: replace(self._desired, versions=rest))
            await self._publish()
            failpoint("remove.recorded")
        # Somebody may have asked for it until now, and an engine that holds it may read the files still.
        await self._free(version, "is removed, its files are not: the gateway's next start deletes them")
        async with self._writing:
            if all(other.digest != found.digest for other in self._desired.versions.values()):
                await self._library.delete(found.digest)

    # From engines and workers -----------------------------------------------------------------------------------------

    def add_engine(self, engine_id: str, model: str, backend: Backend) -> None:
        """Before the start only."""
        self._residents.add_engine(engine_id, model, backend)

    async def equip(self, engine_id: str, status: Status) -> None:
        """An engine is up and takes no traffic yet: strangers go, what should be there is loaded and proven. Bounded; never raises."""
        await self._residents.up(engine_id, status)

    def ready(self, engine_id: str) -> None:
        """It is about to take traffic."""
        self._residents.ready(engine_id)

    def pause(self, engine_id: str) -> None:
        """It takes no traffic for now; `down` follows, or `equip` where the same launch takes some again."""
        self._residents.pause(engine_id)

    def down(self, engine_id: str) -> None:
        """It takes no traffic any more; its next launch is another one."""
        self._residents.down(engine_id)

    def is_at_work(self, engine_id: str) -> bool:
        """Whether something is being loaded there, or waits for that."""
        return self._residents.is_at_work(engine_id)

    def summon_by(self, summon: Callable[[str], bool], wait_s: float) -> None:
        """Before the start: how an engine of a model is started on demand, which returns whether one comes, and how long it may take."""
        self._residents.summon, self._residents.summon_wait_s = summon, wait_s

    def want(self, version: str, worker: int) -> None:
        """A request of `worker` (its column) waits for a version that no engine holds."""
        self._residents.want(version)

    def used(self, versions: Iterable[str]) -> None:
        """Requests asked for them, each named once, in the order of its last use."""
        self._residents.used(versions)

    def trouble(self, trouble: wire.EngineTrouble) -> None:
        """An engine denied an adapter that it is said to hold."""
        if trouble.reason == errors.AdapterAbsent.code:
            self._residents.trouble(trouble.engine_id)

    # Inside -----------------------------------------------------------------------------------------------------------

    async def _examine(self) -> None:
        """All versions, one after another."""
        for version in list(self._desired.versions.values()):
            if await self._library.problem(version):
                await self._publish()

    async def _take_off(self, version: Version) -> None:
        """It is damaged: whoever uses it may end, no engine reads it again."""
        await self._publish()
        with suppress(LoadFailed):  # they do not end: the next round tries again
            await self._residents.free(version.name)

    async def _move(self, make: Callable[[], Change | None], alias: str) -> Change:
        """An alias's move, once what it will serve is there."""
        planned = make()
        if planned is None:
            return self._desired.history[alias][-1]
        names = [share.adapter for share in planned.shares]
        with self._residents.kept(names):
            for name in names:
                if failure := await self._try_bring(name):
                    raise _refused(name, failure)
            return await self._commit(make, alias, planned)

    async def _commit(self, make: Callable[[], Change | None], alias: str, planned: Change | None = None) -> Change:
        """Moves are made one after another, each from the state that the one before left. `planned`: for which versions were brought."""
        async with self._writing:
            change = make()
            if change is None:
                return self._desired.history[alias][-1]
            if planned and change.kind in ("rollback", "auto-rollback") and change != replace(planned, at=change.at):
                who = self._desired.history[alias][-1].who
                raise errors.Conflict(f"{alias} was moved meanwhile, by {who}: look and ask again")
            after = aliases.apply(self._desired, change)
            await self._durable(self._store.move(change, after.aliases.get(alias)), lambda: after)
            replaced = await self._publish()
            failpoint("alias.told")
        self._residents.reconcile(change.model)
        return replace(change, replaced_workers=replaced)

    async def _durable(self, writing: Awaitable[None], after: Callable[[], Desired]) -> None:
        """Raises StoreFailed where the change was not made, or where that cannot be known."""
        wanted = after()
        try:
            await writing
        except StoreFailed:
            await self._reload()  # whatever it is: that is what counts
            if self._desired != wanted:
                await self._publish()
                raise
        self._desired = wanted

    async def _reload(self) -> None:
        try:
            self._desired = await self._store.load()
        except StoreFailed as exc:
            raise StoreFailed(
                f"it is not known whether the change was made, look before you ask again: {exc.message}",
                retry_after_s=5,
            ) from exc

    async def _try_bring(self, name: str) -> LoadFailed | None:
        if self._residents.holders(name):
            return None
        try:
            await self._residents.bring(name)
        except LoadFailed as exc:
            return exc
        return None

    async def _spread(self, version: Version) -> None:
        """To the other engines that have a slot free."""
        able = [
            item
            for item in self._residents.of_model(version.model)
            if len(item.held) + item.num_pending < item.num_slots and not self._residents.wrong_base(version, item)
        ]
        others = [item.bring(version) for item in able if version.name not in item.failed]
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, LoadFailed):
                raise outcome

    async def _prove_again(self, version: Version) -> None:
        """Where it was loaded before it had a reference."""
        for loads in self._residents.of_model(version.model):
            with suppress(LoadFailed):
                await loads.attest(version)

    async def _set_pin(self, version: Version, is_pinned: bool) -> None:
        async with self._writing:
            found = self._known(version.name)
            changed = replace(found, is_pinned=is_pinned)
            await self._durable(self._store.pin(found.name, is_pinned), lambda: self._with_version(changed))

    def _removable(self, name: str) -> Version:
        found = self._known(name)
        if users := self._desired.users(name):
            raise errors.Conflict(
                f"{name} is served, or kept for a rollback, by {', '.join(users)}: move or drop that first"
            )
        if found.is_pinned:
            raise errors.Conflict(f"{name} is pinned: unpin it first")
        return found

    async def _free(self, version: str, outcome: str) -> None:
        """On every engine. Raises Conflict with the `outcome` where one keeps it."""
        try:
            await self._residents.free(version)
        except LoadFailed as exc:
            raise errors.Conflict(f"{version} {outcome}: {exc.message}") from exc
        finally:
            await self._publish()

    def _with_version(self, version: Version) -> Desired:
        return replace(self._desired, versions={**self._desired.versions, version.name: version})

    def _known(self, name: str) -> Version:
        if name not in self._desired.versions:
            raise errors.NotFound(f"no version {name!r}; see `forgegate adapters list`")
        return self._desired.versions[name]


def _refused(version: str, failure: LoadFailed) -> errors.GatewayError:
    """As a command's error."""
    if failure.retry_s is None:
        return VersionUnusable(f"{version} cannot be served: {failure.message}")
    return errors.NoEngineReady(
        f"{version} is not loaded: {failure.message}", retry_after_s=max(1, round(failure.retry_s))
    )
