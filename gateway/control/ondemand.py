"""Engines that run on demand: a request that finds none starts or wakes one, idleness and others' need for memory send them away.

The engines' lives carry it out, and decide by their own state: what comes too late, or for an engine that is busy by then, has
no effect.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from backends.lifecycle import EngineLife
from backends.status import Drain, State
from gateway.config import Pool
from gateway.control.idle import Idle
from gateway.control.room import Occupant, Phase
from gateway.control.starts import Seen

LOOK_S = 0.5
CALLABLE = (State.ASLEEP, State.STOPPED, State.DRAINING)
"""What a request may be answered with a start from, the quickest first; what drains may have to end first."""
COMING = (State.STARTING, State.BACKOFF)
PHASES = {
    State.STARTING: Phase.STARTING, State.READY: Phase.READY, State.DRAINING: Phase.LEAVING, State.ASLEEP: Phase.ASLEEP,
}  # fmt: skip


def next_words(sleep_level: int = 0) -> str:
    """What will bring it back."""
    return f"the next request {'wakes' if sleep_level else 'starts'} it"


class Traffic(Protocol):
    """Requests of all workers, by an engine's slot: `gateway.counters.Counters`."""

    def running(self, slot: int) -> int: ...
    def sent(self, slot: int) -> int: ...


class NoTraffic:
    """Before there are workers."""

    def running(self, slot: int) -> int:
        return 0

    def sent(self, slot: int) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Tenant:
    """An engine as it lives here."""

    id: str
    slot: int
    model: str
    pool: Pool
    life: EngineLife
    needs: Mapping[str, int]
    """Bytes by device."""
    is_gated: bool


class OnDemand:
    """`run` is the task that looks for idle engines. `is_used` says whether control itself has work on an engine."""

    def __init__(self, is_used: Callable[[str], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self.traffic: Traffic = NoTraffic()
        self._is_used = is_used
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}
        self._idle = Idle()
        self._serving_since: dict[str, float] = {}
        """By engine that takes traffic."""

    def add(self, tenant: Tenant) -> None:
        self._tenants[tenant.id] = tenant

    def want(self, model: str) -> bool:
        """A request waits for an engine of the model; returns whether one that runs on demand is coming."""
        tenants = [one for one in self._tenants.values() if one.model == model]
        if coming := [one for one in tenants if _comes(one)]:
            return any(one.pool.is_on_demand for one in coming)
        able = [
            one
            for one in tenants
            if one.pool.is_on_demand and one.life.status.may_be_wanted and one.life.status.state in CALLABLE
        ]
        if able:
            min(able, key=_reluctance).life.want()
        return bool(able)

    def serves(self, engine_id: str) -> None:
        """It takes traffic from now on."""
        self._serving_since[engine_id] = self._clock()
        self._idle.begin(engine_id, self._clock())

    def rests(self, engine_id: str) -> None:
        """It takes none any more."""
        self._serving_since.pop(engine_id, None)

    def look(self) -> None:
        """Send away what has been idle for too long."""
        now = self._clock()
        for one in self._tenants.values():
            if not one.pool.is_on_demand or one.id not in self._serving_since:
                continue
            idle_s = self._idle.look(one.id, self._num_running(one), self.traffic.sent(one.slot), now)
            if idle_s >= one.pool.idle_s:
                level = one.pool.sleep_level
                one.life.drain(Drain(f"idle for {one.pool.idle_s:g} s; {next_words(level)}", level, patience_s=0.0))

    async def run(self) -> None:
        shortest_s = min((one.pool.idle_s for one in self._tenants.values()), default=LOOK_S)
        while True:
            try:
                self.look()
            except Exception:  # noqa: BLE001 - named boundary: logged; engines that stay too long are no reason to stop looking
                traceback.print_exc()
            await asyncio.sleep(min(LOOK_S, shortest_s / 4))

    # For the gate -----------------------------------------------------------------------------------------------------

    def up(self) -> Sequence[Seen]:
        return [
            self._seen(one, PHASES[state])
            for one in self._tenants.values()
            if (state := one.life.status.state) in PHASES
        ]

    def make_way(self, engine_id: str, for_whom: str, patience_s: float) -> None:
        one = self._tenants[engine_id]
        level = 0 if one.life.status.state is State.ASLEEP else one.pool.sleep_level
        why = f"it made way for {for_whom}; {next_words(level)}"
        one.life.drain(Drain(why, level, patience_s))

    def _seen(self, one: Tenant, phase: Phase) -> Seen:
        since = self._serving_since.get(one.id)
        can_leave = one.pool.is_on_demand and (since is not None or phase is Phase.ASLEEP)
        occupant = Occupant(
            one.id, phase, one.needs, None, one.life.backend.starts_alone, can_leave, self._num_running(one),
            self._clock() - since if since is not None else 0.0, self._idle.last_use(one.id),
        )  # fmt: skip
        return Seen(occupant, one.life.status.pid, one.is_gated)

    def _num_running(self, one: Tenant) -> int:
        return self.traffic.running(one.slot) + self._is_used(one.id)


def _reluctance(one: Tenant) -> tuple[int, int]:
    """One that fell asleep comes soonest; of those that are stopped, the one whose starts failed least often."""
    status = one.life.status
    return CALLABLE.index(status.state), status.num_failed_starts


def _comes(one: Tenant) -> bool:
    """Nothing else is started beside it. One that always stays counts once it is ready: it may never be."""
    state = one.life.status.state
    return state is State.READY or (one.pool.is_on_demand and state in COMING)
