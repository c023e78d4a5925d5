"""A control process whose one engine sleeps, or is starting: prints its pids as JSON, then waits to be killed.

python -m tests.backends.sleeping_control asleep | starting
"""

from __future__ import annotations

import asyncio
import json
import sys

from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.probe import Prober
from backends.process import Launcher
from backends.status import Drain, State, Status
from tests.backends.life_rig import StubBackend, StubSleep


async def main(wanted: str) -> None:
    launcher = await Launcher.start()
    flags = ("--deaf", "--start-s", "600" if wanted == "starting" else "0")
    news: asyncio.Queue[Status] = asyncio.Queue()
    life = EngineLife(StubBackend(flags, sleeps=StubSleep()), launcher, Prober(), LogRing(), news.put)
    task = asyncio.create_task(life.run())
    life.start()
    while not (life.status.state == wanted and life.status.pid):
        if life.status.state is State.READY:
            life.drain(Drain("to sleep", 1, is_command=True))
        await asyncio.sleep(0.05)
    print(json.dumps({"engine": life.status.pid, "guardian": launcher.guardian_pid}), flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
