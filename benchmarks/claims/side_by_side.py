"""Configurations that differ in one thing: up together, asked directly, one at a time, in turns."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.campaign import Plan
from benchmarks.claims.contest import Kept, hold
from benchmarks.claims.contestants import Served
from benchmarks.claims.fleet import Fleet, descriptions, direct, started
from benchmarks.claims.setting import Setting
from benchmarks.loads import ClosedLoad

Look = Callable[[Fleet], Awaitable[dict[str, Any]]]
"""At the engines, when all turns are over."""


@dataclass(frozen=True, slots=True)
class Contest:
    """The same requests for every configuration."""

    name: str
    plan: Plan
    loads: Sequence[ClosedLoad]


@dataclass(frozen=True, slots=True)
class Held:
    """Contests that are over, in their order."""

    kept: list[Kept]
    told: dict[str, Any]
    """What the engines are, and what was looked at."""


async def compare(
    setting: Setting,
    section: str,
    pools: Mapping[str, Mapping[str, Any]],
    contests: Sequence[Contest],
    look: Look | None = None,
) -> Held:
    """Hold the contests, of those that `pools` names, in that order. Raises ChildError, GatewayError, WarmUpError."""
    folder = setting.folder(section)
    kept = [Kept.read(folder / f"{contest.name}.json", setting.mark) for contest in contests]
    async with started(folder, pools, setting.start_s) as fleet:
        targets = await direct(fleet)
        for contest, turns in zip(contests, kept, strict=True):
            contestants = [Served(name, targets[name], contest.plan) for name in pools]
            await hold(contestants, contest.loads, setting.repeats, turns)
        told = {"engines": await descriptions(fleet)} | (await look(fleet) if look else {})
    return Held(kept, told)
