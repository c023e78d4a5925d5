"""What a routing policy sees and says. Policies are pure: no clock, no socket, no log; randomness is injected.

    snapshot + counters --candidates()--> [Candidate] --Policy.choose--> Decision(engine, why)

`why` goes into the access log as the request's routing receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from gateway.snapshot import Engine

RandomBelow = Callable[[int], int]
"""Returns a number in [0, n): `random.randrange` or a seeded one."""


class Load(Protocol):
    """Where a candidate's load is read: `gateway.counters.Counters`."""

    def running(self, slot: int, /) -> int:
        """Requests now on that engine."""
        ...

    def outstanding_tokens(self, slot: int, /) -> int:
        """Estimated tokens it still has to compute."""
        ...


class Candidate(msgspec.Struct, frozen=True):
    """One replica that may be chosen, with its load at this moment."""

    engine: Engine
    num_running: int
    num_outstanding_tokens: int


class Decision(msgspec.Struct, frozen=True):
    """The chosen replica and the reason, in a few words."""

    engine: Engine
    why: str


class Policy(Protocol):
    """Chooses one of at least one candidate."""

    def choose(self, candidates: Sequence[Candidate]) -> Decision:
        """Return the decision; `candidates` is never empty and all of them are ready."""
        ...


def candidates(engines: Iterable[Engine], load: Load, excluded: Collection[str] = ()) -> list[Candidate]:
    """Return the ready engines with their load, without those whose id is `excluded` (already tried)."""
    return [
        Candidate(engine, load.running(engine.slot), load.outstanding_tokens(engine.slot))
        for engine in engines
        if engine.state == "ready" and engine.id not in excluded
    ]
