"""Who may start now, who must leave for it, and who has to wait for whom. Pure.

    free memory - what engines that are up will still take - what was promised in this round = room

Who asks is looked at in the order of its need, the largest first; one that others have passed often enough goes before all.
From the first one that lacks room on a device, nobody behind it gets any of that device. Room is made by engines that run on
demand: those that are idle leave, least recently used first. Where they do not suffice, busy ones give up their turn: they
take no new requests, and leave once the running ones have ended; if these outlast `max_wait_s`, they stay. Nobody is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from backends.plan import size_words

MIN_UP_S = 2.0
"""For the requests that an engine was started for to reach it."""
MAX_PASSED = 3


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class Applicant:
    """An engine that wants to start or wake."""

    id: str
    needs: Mapping[str, int]
    """Bytes by device."""
    is_alone: bool = False
    """No other such one may start beside it."""
    is_patient: bool = False
    """It always stays: no request waits for it, and it is never refused."""
    order: int = 0
    """Of asking."""
    num_passed: int = 0
    """Starts that were let in before it since it asked."""
    waited_s: float = 0.0
    quiet_s: float = 0.0
    """Since something last moved that could make room for it."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """An engine that is up, or on its way there or away."""

    id: str
    phase: Phase
    needs: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] | None = None
    """What it was seen to hold of each device; None: nobody knows."""
    is_alone: bool = False
    can_leave: bool = False
    """It runs on demand."""
    num_running: int = 0
    up_s: float = 0.0
    last_use: float = 0.0
    """Clock reading."""

    @property
    def is_idle(self) -> bool:
        return self.num_running == 0 and self.up_s >= MIN_UP_S

    def owed(self, device: str) -> int:
        """What it will take yet."""
        if self.phase not in (Phase.STARTING, Phase.READY):
            return 0
        need = self.needs.get(device, 0)
        if self.held is None:
            return need if self.phase is Phase.STARTING else 0
        return max(0, need - self.held.get(device, 0))

    def frees(self, device: str) -> int:
        """Of the room, once it has left."""
        need = self.needs.get(device, 0)
        if self.held is None:
            return need
        seen = self.held.get(device, 0)
        return max(seen, need) if self.phase is Phase.READY else seen


@dataclass(frozen=True, slots=True)
class Rules:
    turn_s: float = 10.0
    """Somebody waits this long before a busy engine gives up its turn, which lasted at least as long."""
    release_s: float = 30.0
    """How long memory that no engine here can give back is waited for; then the engine itself has to see."""
    max_wait_s: float = 300.0
    """How long busy engines are waited for; then the start is refused."""


@dataclass(slots=True)
class Round:
    """What is decided."""

    admitted: list[str] = field(default_factory=list)
    leave: dict[str, str] = field(default_factory=dict)
    """Idle ones, each with the one that it makes way for."""
    turns_over: dict[str, str] = field(default_factory=dict)
    """Busy ones, likewise."""
    refused: dict[str, str] = field(default_factory=dict)
    """With the reason."""
    waits: dict[str, str] = field(default_factory=dict)
    """In words, for whom or what each of the others waits."""
    lacking: dict[str, str] = field(default_factory=dict)
    """By applicant: a device whose memory somebody else than our engines holds."""


def decide(
    applicants: Sequence[Applicant],
    occupants: Sequence[Occupant],
    free: Mapping[str, int],
    rules: Rules,
    expected: Mapping[str, int] | None = None,
) -> Round:
    """`free`: bytes by device; one that is not in it is not watched. `expected`: bytes of lone engines that will ask soon."""
    room = Counter({device: size - sum(one.owed(device) for one in occupants) for device, size in free.items()})
    held = {one.id: one.held or {} for one in occupants}  # one that wakes has some of it already
    made = Round()
    lone = next((one.id for one in occupants if one.is_alone and one.phase is Phase.STARTING), "")
    claimed: dict[str, str] = {}
    for asking in sorted(applicants, key=_rank):
        more = {device: max(0, size - held.get(asking.id, {}).get(device, 0)) for device, size in asking.needs.items()}
        missing = {
            device: size - room[device] for device, size in more.items() if device in free and size > room[device]
        }
        ahead = next((claimed[device] for device in asking.needs if device in claimed), "")
        if asking.is_alone and (first := lone or _larger(asking, expected or {})):
            made.waits[asking.id] = f"waits for {first}, which starts before it: both measure the free memory"
        elif ahead:
            made.waits[asking.id] = f"waits for memory behind {ahead}"
        elif not missing or not _find_room(asking, missing, occupants, made, rules):
            made.admitted.append(asking.id)
            room.subtract(more)
            lone = asking.id if asking.is_alone else lone
        else:
            claimed.update(dict.fromkeys(missing, asking.id))
    return made


def _find_room(
    asking: Applicant, missing: Mapping[str, int], occupants: Sequence[Occupant], made: Round, rules: Rules
) -> bool:
    """What can be done so that it may start; False where it may start as it is, since nothing can be done any more."""
    others = [one for one in occupants if one.id != asking.id]
    useful = [one for one in others if any(one.frees(d) or one.owed(d) for d in missing)]
    lacks = " and ".join(f"{size_words(size)} of {device}" for device, size in missing.items())
    moving = [one for one in useful if one.phase is Phase.LEAVING or one.id in {*made.leave, *made.turns_over}]
    if moving:
        made.waits[asking.id] = f"waits for {lacks} until {_names(moving)} has left"
        return True
    idle = [one for one in useful if one.can_leave and one.phase is Phase.READY and one.is_idle]
    idle = [*sorted(idle, key=_use), *sorted((one for one in useful if _sleeps(one)), key=_use)]
    busy = sorted((one for one in useful if one.can_leave and one.phase is Phase.READY and not one.is_idle), key=_use)
    chosen = _enough(missing, idle) or _enough(missing, [*idle, *busy])
    if chosen is None:
        return _wait_for_others(asking, lacks, useful, missing, made, rules)
    hindering = [one for one in chosen if one in busy]
    if not hindering or (asking.waited_s >= rules.turn_s and all(one.up_s >= rules.turn_s for one in hindering)):
        for one in chosen:
            (made.turns_over if one in hindering else made.leave)[one.id] = asking.id
        made.waits[asking.id] = f"waits for {lacks} until {_names(chosen)} has left"
    elif asking.waited_s >= rules.max_wait_s and not asking.is_patient:
        made.refused[asking.id] = f"no room: it lacks {lacks}, and {_names(hindering)} is busy"
    else:
        made.waits[asking.id] = f"waits for {lacks} until {_names(hindering)} is idle or its turn is over"
    return True


def _wait_for_others(
    asking: Applicant, lacks: str, useful: Sequence[Occupant], missing: Mapping[str, int], made: Round, rules: Rules
) -> bool:
    """No engine that may leave can make the room."""
    starting = [one for one in useful if one.phase is Phase.STARTING]
    if starting and asking.waited_s < rules.max_wait_s:
        made.waits[asking.id] = f"waits for {lacks} until {_names(starting)} has started"
        return True
    if asking.quiet_s >= rules.release_s:
        return False
    made.waits[asking.id] = f"waits up to {rules.release_s:.0f} s for {lacks}"
    made.lacking[asking.id] = next(iter(missing))
    return True


def _enough(missing: Mapping[str, int], candidates: Sequence[Occupant]) -> list[Occupant] | None:
    """The first of them that make the room, less those that are not needed for it; None where all do not."""
    chosen: list[Occupant] = []
    for one in candidates:
        if _covers(missing, chosen):
            break
        chosen.append(one)
    if not _covers(missing, chosen):
        return None
    for one in list(chosen):
        rest = [other for other in chosen if other is not one]
        if _covers(missing, rest):
            chosen = rest
    return chosen


def _covers(missing: Mapping[str, int], leaving: Sequence[Occupant]) -> bool:
    return all(sum(one.frees(device) for one in leaving) >= size for device, size in missing.items())


def _rank(asking: Applicant) -> tuple[int, int, int]:
    if asking.num_passed >= MAX_PASSED:
        return 0, 0, asking.order
    return 1, -sum(asking.needs.values()), asking.order


def _larger(asking: Applicant, expected: Mapping[str, int]) -> str:
    own = sum(asking.needs.values())
    return next((name for name, size in expected.items() if size > own and name != asking.id), "")


def _sleeps(one: Occupant) -> bool:
    return one.can_leave and one.phase is Phase.ASLEEP


def _use(one: Occupant) -> float:
    return one.last_use


def _names(several: Sequence[Occupant]) -> str:
    return ", ".join(f"{one.id} ({one.num_running} requests)" if one.num_running else one.id for one in several)
