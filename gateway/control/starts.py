"""The gate before every start that must not happen beside others, or before there is memory: the one that lets engines in.

    engine --enter--> applicant --round by round, as `gateway.control.room` decides--> admitted --leave--> its start is over
                                                                                      refused

A round looks at the memory as it is, and at the engines as they are. What it decides about engines that must leave is a
command to them, which they carry out only where no request runs by then.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from backends.base import Tell
from gateway.control.memory import Memory
from gateway.control.room import Applicant, Occupant, Phase, Round, Rules, decide

LOOK_S = 0.25
FIRST_ROUND_S = 20.0
"""How long engines that start together are waited for, so that the largest may begin."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An engine that is up, with its process."""

    occupant: Occupant
    pid: int | None
    is_gated: bool
    """It starts only once it has been let in."""


class Engines(Protocol):
    """What the gate sees of the engines, and tells them."""

    def up(self) -> Sequence[Seen]: ...

    def make_way(self, engine_id: str, for_whom: str, patience_s: float) -> None:
        """Leave, unless requests run on for longer than that."""
        ...


@dataclass(slots=True)
class _Entry:
    applicant: Applicant
    came_at: float
    quiet_since: float
    answer: asyncio.Future[str]
    tell: Tell
    told: str = ""


class Starts:
    """`run` is the task; engines come through their `Door`."""

    def __init__(
        self, memory: Memory, engines: Engines, rules: Rules, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._memory = memory
        self._engines = engines
        self._rules = rules
        self._clock = clock
        self._orders = itertools.count()
        self._queue: dict[str, _Entry] = {}
        self._inside: dict[str, Applicant] = {}
        self._expected: dict[str, int] = {}
        self._expected_until = 0.0
        self._news = asyncio.Event()

    def door(self, engine_id: str, needs: Mapping[str, int], is_alone: bool, is_patient: bool = False) -> Door:
        return Door(self, Applicant(engine_id, needs, is_alone, is_patient))

    def expect(self, doors: Sequence[Door]) -> None:
        """These are about to ask, all together."""
        self._expected = {
            door.applicant.id: sum(door.applicant.needs.values()) for door in doors if door.applicant.is_alone
        }
        self._expected_until = self._clock() + FIRST_ROUND_S

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                try:
                    await self._round()
                except Exception:  # noqa: BLE001 - named boundary: logged, and nobody waits for good
                    traceback.print_exc()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                    self._news.clear()
                except TimeoutError:
                    continue

    # For doors --------------------------------------------------------------------------------------------------------

    async def enter(self, applicant: Applicant, tell: Tell) -> str:
        if applicant.id in self._inside:
            return ""
        now = self._clock()
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        entry = _Entry(replace(applicant, order=next(self._orders)), now, now, answer, tell)
        self._queue[applicant.id] = entry
        self._expected.pop(applicant.id, None)
        self._news.set()
        try:
            return await answer
        finally:
            if self._queue.get(applicant.id) is entry:
                del self._queue[applicant.id]

    def leave(self, engine_id: str) -> None:
        self._inside.pop(engine_id, None)
        self._expected.pop(engine_id, None)
        self._news.set()

    # The task ---------------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        devices = sorted({device for entry in self._queue.values() for device in entry.applicant.needs})
        seen = self._engines.up()
        free, occupants = await asyncio.to_thread(self._measure, devices, seen)
        now = self._clock()
        self._note_moves(occupants, now)
        expected = self._expected if now < self._expected_until else {}
        applicants = [self._as_of(entry, now) for entry in self._queue.values()]
        made = decide(applicants, occupants, free, self._rules, expected)
        for engine_id in made.admitted:
            self._admit(engine_id)
        for engine_id, reason in made.refused.items():
            self._answer(engine_id, reason)
        for engine_id, for_whom in made.leave.items():
            self._engines.make_way(engine_id, for_whom, patience_s=0.0)
        for engine_id, for_whom in made.turns_over.items():
            self._engines.make_way(engine_id, for_whom, self._rules.max_wait_s)
        await self._tell(made)

    def _measure(self, devices: Sequence[str], seen: Sequence[Seen]) -> tuple[Mapping[str, int], list[Occupant]]:
        occupants = []
        for one in seen:
            phase = one.occupant.phase
            if one.occupant.id in self._inside:
                phase = Phase.STARTING
            elif phase is Phase.STARTING and one.is_gated:
                if one.pid is None:
                    continue  # it takes nothing yet
                phase = Phase.ASLEEP  # it asks to wake
            held = self._memory.held(one.pid, devices) if one.pid is not None else None
            occupants.append(replace(one.occupant, phase=phase, held=held))
        known = {one.id for one in occupants}
        for name, inside in list(self._inside.items()):
            if name not in known:  # something starts in the place of an engine that is stopped
                occupants.append(Occupant(name, Phase.STARTING, inside.needs, is_alone=inside.is_alone))
        return self._memory.free(devices), occupants

    def _note_moves(self, occupants: Sequence[Occupant], now: float) -> None:
        if any(one.phase in (Phase.STARTING, Phase.LEAVING) for one in occupants):
            for entry in self._queue.values():
                entry.quiet_since = now

    def _as_of(self, entry: _Entry, now: float) -> Applicant:
        return replace(entry.applicant, waited_s=now - entry.came_at, quiet_s=now - entry.quiet_since)

    def _admit(self, engine_id: str) -> None:
        entry = self._queue.get(engine_id)
        if entry is None or entry.answer.done():
            return  # it does not want to any more
        self._inside[engine_id] = entry.applicant
        self._answer(engine_id, "")
        for other in self._queue.values():
            if other.applicant.order < entry.applicant.order:
                other.applicant = replace(other.applicant, num_passed=other.applicant.num_passed + 1)

    def _answer(self, engine_id: str, text: str) -> None:
        if (entry := self._queue.pop(engine_id, None)) is not None and not entry.answer.done():
            entry.answer.set_result(text)

    async def _tell(self, made: Round) -> None:
        for engine_id, text in made.waits.items():
            entry = self._queue.get(engine_id)
            if entry is None or entry.told == text:
                continue
            entry.told = text
            holders = ""
            if device := made.lacking.get(engine_id, ""):
                holders = await asyncio.to_thread(self._memory.holders, device)
            entry.tell(text + (f"; most of it is held by {holders}" if holders else ""))


class Door:
    """One engine's `backends.ties.Gate`."""

    def __init__(self, starts: Starts, applicant: Applicant) -> None:
        self.applicant = applicant
        self._starts = starts

    async def enter(self, tell: Tell) -> str:
        return await self._starts.enter(self.applicant, tell)

    def leave(self) -> None:
        self._starts.leave(self.applicant.id)
