from __future__ import annotations

import asyncio
from pathlib import Path

from backends.base import Identity
from backends.probe import Prober
from backends.process import Launcher
from backends.status import State, Status
from gateway.configfile import parse
from gateway.control.fleet import Fleet
from gateway.control.supervisor import Supervisor, backends_of
from gateway.home import Home
from gateway.snapshot import Snapshot


class Observed:
    def __init__(self) -> None:
        self.states: list[str] = []

    def engine(self, engine_id: str, status: Status) -> None:
        self.states.append(f"{engine_id} {status.state}")


async def _nobody(snapshot: Snapshot) -> tuple[int, ...]:
    return ()


async def test_a_bug_in_one_engines_life_is_logged_and_shown_not_swallowed(tmp_path: Path) -> None:
    config = parse("models: [{name: org/far, pools: [{engine: remote, base_url: http://h, replicas: 2}]}]")
    home, observed = Home(tmp_path), Observed()
    launcher, prober = await Launcher.start(), Prober()
    fleet = Fleet(config, _nobody)
    supervisor = Supervisor(launcher, prober, fleet, home, observed)
    ((model, pool, backend),) = backends_of(config, home)

    async def broken(*_: object) -> Identity:
        raise RuntimeError("a bug")

    backend.prepare = broken  # type: ignore[method-assign]
    supervisor.add(model, pool, backend)
    supervisor.start()
    async with asyncio.timeout(5):
        while not fleet.is_hopeless:
            await asyncio.sleep(0.01)
        await supervisor.settled()
        assert fleet.members["org/far-1"].status.state is State.FAILED
        num_reports = len(observed.states)
        supervisor.lives["org/far-0"].restart()  # it still takes commands
        while len(observed.states) < num_reports + 2:
            await asyncio.sleep(0.01)
        await supervisor.stop()
    assert set(fleet.members) == {"org/far-0", "org/far-1"}
    assert "RuntimeError: a bug" in supervisor.lives["org/far-0"].log.tail(1)[0]
    assert (tmp_path / "logs" / "org_far-0.log").exists()
    await prober.close()
    await launcher.close()
