"""How much of their capacity users take of the engines: what decides whether a benchmark may begin.

It would slow users down, and be slowed down by them: what it measured would be neither. So many requests as an engine computes at a time
are its capacity, or its KV cache, of which few long requests may take all; what lies nearer to its end counts. Engines that forgegate
launched share this machine, whatever their model; a remote one counts only where it is the one to be measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.base import Load
from backends.plan import Plan
from backends.status import State
from gateway.config import Pool
from gateway.control.fleet import Member

MAX_SHARE = 0.1
"""Of an engine's capacity, beside which a benchmark may still begin."""
LOOKS, LOOK_EVERY_S = 10, 0.1
"""Short requests come and go: their mean number over a second counts."""
ASSUMED_PLACES = 32
REMOTE = "remote"
_PLACES = ("n_seq_max", "max_num_seqs")
"""Options by which engines say how many requests they compute at a time."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The engine that is nearest to its end."""

    engine_id: str
    share: float
    """Of its capacity, from 0; above 1 where requests wait."""
    words: str
    """Of what: `10.0 of 32 requests at a time`."""


class UserTraffic:
    """`running`: requests on the engine of a slot now; `last`: what an engine said last of its load; `places`: by engine."""

    def __init__(
        self,
        members: Mapping[str, Member],
        running: Callable[[int], int],
        last: Callable[[str], Load | None],
        places: Mapping[str, int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._members = members
        self._running = running
        self._last = last
        self._places = places
        self._sleep = sleep

    async def busiest(self, model: str) -> Busy | None:
        """After a second's look; None where no engine is ready. `model`: the base model that is to be measured."""
        members = [member for member in self._members.values() if member.kind != REMOTE or member.model == model]
        totals = dict.fromkeys((member.id for member in members), 0)
        for _ in range(LOOKS):
            for member in members:
                totals[member.id] += self._running(member.slot)
            await self._sleep(LOOK_EVERY_S)
        ready = [member for member in members if member.status.state is State.READY]
        found = [self._busy(member.id, totals[member.id] / LOOKS) for member in ready]
        return max(found, key=lambda busy: busy.share, default=None)

    def _busy(self, engine_id: str, num_running: float) -> Busy:
        places = self._places.get(engine_id, ASSUMED_PLACES)
        by_requests = Busy(engine_id, num_running / places, f"{num_running:.1f} of {places} requests at a time")
        load = self._last(engine_id)
        if load is None or load.kv_usage <= by_requests.share:
            return by_requests
        return Busy(engine_id, load.kv_usage, "of its KV cache")


def places_of(pool: Pool, plan: Plan | None) -> int:
    """How many requests an engine of the pool computes at a time: as its options say, or what was picked for it."""
    known: dict[str, Any] = {**(plan.options() if plan else {}), **pool.options}
    return next((int(known[name]) for name in _PLACES if known.get(name)), ASSUMED_PLACES)
