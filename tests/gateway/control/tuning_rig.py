"""One engine that can be measured, with real children, and what is told of its measurement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.probe import Prober
from backends.process import Launcher
from backends.status import State, Status
from backends.ties import Ties
from backends.vllm.options import Options
from gateway.configfile import parse
from gateway.control.fleet import Fleet, Member
from gateway.control.trial import Trials
from gateway.control.tuneload import Workload
from gateway.control.tuning import Order, Tuning
from gateway.snapshot import Snapshot
from tests.gateway.control.speculating_engine import Speculating


async def _nobody(snapshot: Snapshot) -> tuple[int, ...]:
    return ()


class Rig:
    def __init__(self, folder: Path, launcher: Launcher, prober: Prober, flags: tuple[str, ...], schedule: str) -> None:
        speculative = {"method": "ngram", "num_speculative_tokens": 2, "schedule": schedule}
        self.backend = Speculating(Options.from_mapping({"speculative": speculative}), folder, flags=flags)
        config = parse("models: [{name: demo, pools: [{engine: remote, base_url: http://h}]}]")
        self.fleet = Fleet(config, _nobody)
        self.fleet.add(Member("demo-0", 0, "vllm", "demo", ("completions",)))
        self.num_running = 0
        ties = Ties(num_running=lambda: self.num_running)
        self.life = EngineLife(self.backend, launcher, prober, LogRing(), self.announce, ties)
        self.tuning = Tuning(
            self.fleet, {"demo-0": self.life}, launcher, Trials(launcher, prober, folder, lambda _: Ties())
        )
        self.events: list[dict[str, Any]] = []

    async def announce(self, status: Status) -> None:
        await self.fleet.report("demo-0", status)

    async def ready(self) -> None:
        async with asyncio.timeout(10):
            while self.fleet.members["demo-0"].status.state is not State.READY:
                await self.fleet.next_report("demo-0")

    async def tune(self, **order: Any) -> dict[str, Any]:
        """The last event."""
        await self.begin(**order)
        return self.events[-1]

    def begin(self, **order: Any) -> asyncio.Task[None]:
        given = {"engine_id": "demo-0", "streams": (1, 4), "is_forced": True, "workload": Workload(("x",), 16)} | order
        return self.tuning.begin(Order(**given), self.events.append)

    async def told(self, text: str) -> None:
        async with asyncio.timeout(10):
            while not any(text in event.get("text", "") for event in self.events):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def rig(folder: Path, *flags: str, schedule: str = "measured") -> AsyncIterator[Rig]:
    launcher, prober = await Launcher.start(), Prober()
    made = Rig(folder, launcher, prober, flags, schedule)
    task = asyncio.create_task(made.life.run())
    made.life.start()
    try:
        await made.ready()
        yield made
    finally:
        await made.tuning.close()
        made.life.close(0.0)
        await asyncio.wait({task})
        await prober.close()
        await launcher.close()
