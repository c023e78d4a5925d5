"""Which replica gets a version, which victim leaves, what should be where. Pure.

A replica holds `num_slots` adapters. What has been asked for least recently leaves first, but

    pinned, or about to be served by an alias    never
    served by an alias                           only where more versions are served than a replica has slots for, less one
    what an alias would roll back to             likewise, counted after those
    with running requests                        only where no idle one may leave

Uses are numbers that grow: the greater, the more recent; 0 is never.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

Rank = tuple[bool, bool, int, str]


@dataclass(frozen=True, slots=True)
class Held:
    """A version on a replica."""

    name: str
    last_use: int
    num_running: int = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """What the versions of a model are needed for."""

    live: Sequence[str] = ()
    former: Sequence[str] = ()
    """What aliases would roll back to."""
    pinned: Sequence[str] = ()
    kept: Collection[str] = ()
    """Those that a move of an alias waits for."""

    def without(self, names: Collection[str]) -> Claims:
        """Of all versions but these."""
        live, former, pinned = ([n for n in some if n not in names] for some in (self.live, self.former, self.pinned))
        return Claims(live, former, pinned, self.kept)


@dataclass(frozen=True, slots=True)
class Replica:
    """One that may get a version."""

    id: str
    num_slots: int
    held: tuple[Held, ...]
    num_pending: int = 0
    """Loads that wait for their turn there."""


def protected(claims: Claims, num_slots: int) -> frozenset[str]:
    """Those that leave last: a slot is left for what is neither."""
    live = {*claims.live, *claims.pinned}
    everything = live | {*claims.former}
    for needed in (everything, live):
        if len(needed) < num_slots:
            return frozenset(needed)
    return frozenset()


def victim(held: Sequence[Held], claims: Claims, num_slots: int, spared: Collection[str] = ()) -> str | None:
    """The one that leaves, None where none may; `spared` do not."""
    late = protected(claims, num_slots)
    can_leave = [item for item in held if item.name not in spared and _may_leave(item, claims)]
    return min(can_leave, key=lambda item: _rank(item, late)).name if can_leave else None


def order(replicas: Iterable[Replica], claims: Claims) -> list[str]:
    """Where to load a version, the best place first: free slots, then the shortest queue, then whose victim is missed the least.

    A replica that has nobody to send away comes last.
    """
    return [replica.id for replica in sorted(replicas, key=lambda replica: _cost(replica, claims))]


def wanted(claims: Claims, last_use: Mapping[str, int], elsewhere: Collection[str], num_slots: int) -> list[str]:
    """What a replica should hold without being asked, the most important first.

    Pins, then what aliases serve, then what they would roll back to. Where that is more than fits, what another replica holds need
    not be here too, and what was used most recently comes first.
    """
    chosen = list(claims.pinned)
    for group in (claims.live, claims.former):
        new = [name for name in group if name not in chosen]
        if len(chosen) + len(new) > num_slots:
            new = sorted((name for name in new if name not in elsewhere), key=lambda name: -last_use.get(name, 0))
        chosen += new
    return chosen[:num_slots]


def _may_leave(item: Held, claims: Claims) -> bool:
    return item.name not in claims.pinned and item.name not in claims.kept


def _rank(item: Held, late: Collection[str]) -> Rank:
    return item.name in late, item.num_running > 0, item.last_use, item.name


def _cost(replica: Replica, claims: Claims) -> tuple[bool, int, Rank]:
    num_free = replica.num_slots - len(replica.held) - replica.num_pending
    if num_free > 0:
        return False, -num_free, (False, False, 0, replica.id)
    can_leave = [item for item in replica.held if _may_leave(item, claims)]
    if not can_leave:
        return True, 1 << 30, (False, False, 0, replica.id)
    late = protected(claims, replica.num_slots)
    return True, replica.num_pending, min(_rank(item, late) for item in can_leave)
