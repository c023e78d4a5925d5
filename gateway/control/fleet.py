"""The fleet: which models exist, which engines answer for them, in which state. Its one owner makes the snapshots."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from backends.base import Identity
from backends.status import State, Status
from gateway import snapshot as wire
from gateway.config import Config

LONGEST_S = 10 * 365 * 86400.0
"""What `.inf` in the configuration comes to."""
Push = Callable[[wire.Snapshot], Awaitable[tuple[int, ...]]]
Adapters = Callable[[], tuple[tuple[wire.Adapter, ...], tuple[wire.Alias, ...]]]
"""What workers are told of versions and aliases; asked for each snapshot."""


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """What workers need to know of the admin API."""

    url: str = ""
    token_sha256: str = ""
    """In hex."""


@dataclass(slots=True)
class Member:
    """One engine as the fleet knows it."""

    id: str
    slot: int
    kind: str
    model: str
    capabilities: tuple[str, ...]
    """What its kind can at best; from the first time that it was ready, what it said itself."""
    is_on_demand: bool = False
    status: Status = field(default_factory=Status)
    has_been_ready: bool = False


class Fleet:
    """Changes only through its methods, each of which returns once all workers decide from the new state."""

    def __init__(
        self,
        config: Config,
        push: Push,
        clock: Callable[[], float] = time.time,
        adapters: Adapters = lambda: ((), ()),
        admin: AdminAccess = AdminAccess(),
        measured: Callable[[], tuple[wire.Measured, ...]] = lambda: (),
    ) -> None:
        self.members: dict[str, Member] = {}
        self.changed = asyncio.Event()
        """Set at every change; whoever waits for one clears it first."""
        self._config = config
        self._push = push
        self._adapters = adapters
        self._admin = admin
        self._measured = measured
        self._created = int(clock())
        self._version = 0
        self._claims: dict[str, Identity] = {}
        self._awaited: dict[str, list[asyncio.Future[tuple[int, ...]]]] = {}

    def add(self, member: Member) -> None:
        """Before the start only."""
        self.members[member.id] = member

    async def report(self, engine_id: str, status: Status) -> None:
        """An engine's new status."""
        awaited = self._awaited.pop(engine_id, [])  # those who ask from here on mean a later one
        member = self.members[engine_id]
        member.status = status
        member.has_been_ready = member.has_been_ready or status.state is State.READY
        if status.facts and status.facts.capabilities:
            member.capabilities = status.facts.capabilities
        try:
            replaced = await self.publish()
        except asyncio.CancelledError:  # not all workers know of it: the next report is theirs
            self._awaited.setdefault(engine_id, []).extend(awaited)
            raise
        for future in awaited:
            if not future.done():
                future.set_result(replaced)

    def next_report(self, engine_id: str) -> asyncio.Future[tuple[int, ...]]:
        """Done once all workers decide from the engine's next status; holds the columns of workers replaced for that."""
        future: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(engine_id, []).append(future)
        return future

    def claim_weights(self, engine_id: str, identity: Identity) -> str:
        """An engine is about to serve these weights: why it may not, else nothing.

        All engines of a model share their source; replicas are prepared side by side, so the claim counts from this call on.
        """
        self._claims[engine_id] = identity
        own = self.members[engine_id]
        for other in self.of_model(own.model):
            theirs = self._claims.get(other.id, Identity())
            if identity.is_source and theirs.is_source and theirs.digest != identity.digest:
                del self._claims[engine_id]
                return f"its weights ({_short(identity.digest)}) are not those of {other.id} ({_short(theirs.digest)})"
        return ""

    async def publish(self) -> tuple[int, ...]:
        """Push the present state to all workers; returns the columns of workers that had to be replaced."""
        self._version += 1
        self.changed.set()
        return await self._push(self.snapshot())

    def snapshot(self) -> wire.Snapshot:
        config = self._config
        adapters, aliases = self._adapters()
        return wire.Snapshot(
            version=self._version,
            models=tuple(self._model(model.name) for model in config.models),
            adapters=adapters,
            aliases=aliases,
            measured=self._measured(),
            keys=tuple(wire.Key(key.name, key.sha256) for key in config.keys),
            timeouts=wire.Timeouts(
                connect_s=_finite(config.timeouts.connect_s), first_byte_s=_finite(config.timeouts.first_byte_s),
                idle_s=_finite(config.timeouts.idle_s), total_s=_finite(config.timeouts.total_s),
            ),
            max_body_bytes=config.limits.max_body_bytes,
            adapter_wait_s=_finite(config.adapters.wait_s),
            max_adapter_waiting=config.adapters.max_waiting,
            engine_wait_s=_finite(config.limits.engine_wait_s),
            max_engine_waiting=config.limits.max_engine_waiting,
            admin_sha256=self._admin.token_sha256,
            admin_url=self._admin.url,
        )  # fmt: skip

    @property
    def is_hopeless(self) -> bool:
        """Every engine has been given up and none was ever ready."""
        return all(m.status.state is State.FAILED and not m.has_been_ready for m in self.members.values())

    @property
    def can_serve(self) -> bool:
        """An engine was ready, or is one that the first request starts."""
        return any(m.has_been_ready or _is_callable(m) for m in self.members.values())

    def of_model(self, name: str) -> list[Member]:
        return [member for member in self.members.values() if member.model == name]

    def _model(self, name: str) -> wire.Model:
        members = self.of_model(name)
        lengths = [m.status.facts.context_length for m in members if m.status.facts and m.status.facts.context_length]
        return wire.Model(
            name=name,
            resolved=self.resolved(name),
            engines=tuple(_engine(member) for member in members),
            context_length=min(lengths, default=None),
            capabilities=self.capabilities(name),
            refused_options=self._refused_options(members),
            created=self._created,
        )

    def _refused_options(self, members: list[Member]) -> tuple[str, ...]:
        """Of any of them: a request may go to each."""
        options = [
            option for member in members if member.status.facts for option in member.status.facts.refused_options
        ]
        return tuple(dict.fromkeys(options))

    def resolved(self, name: str) -> str:
        digest = next((m.status.identity.digest for m in self.of_model(name) if m.status.identity.digest), "")
        return f"{name}@{_short(digest)}" if digest else name

    def capabilities(self, name: str) -> tuple[str, ...]:
        """What every engine of the model can do: a request may go to any of them."""
        first, *others = (member.capabilities for member in self.of_model(name))
        return tuple(item for item in first if all(item in other for other in others))


def _engine(member: Member) -> wire.Engine:
    status = member.status
    return wire.Engine(
        id=member.id,
        slot=member.slot,
        kind=member.kind,
        state=str(status.state),
        host=status.address.host,
        port=status.address.port,
        tls=status.address.tls,
        path_prefix=status.address.path_prefix,
        secret=status.secret,
        model=status.facts.model if status.facts else "",
        detail=status.detail,
        retry_after_s=max(1, math.ceil(status.retry_after_s)),
        num_failed_starts=status.num_failed_starts,
        is_on_demand=member.is_on_demand and not status.is_held,
        is_paused=status.is_paused,
    )


def _is_callable(member: Member) -> bool:
    return member.is_on_demand and not member.status.is_held and member.status.state is not State.FAILED


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _finite(seconds: float) -> float:
    """JSON has no infinity, and nothing waits for longer than this."""
    return min(seconds, LONGEST_S)
