"""An engine that no client knows of: started to be measured in another one's place, and ended afterwards, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from backends.base import Backend, Tell
from backends.errors import ProbeFailed
from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.probe import Prober
from backends.process import Launcher
from backends.restart import RestartPolicy
from backends.status import State, Status
from backends.ties import Ties
from gateway.control.tuneload import MeasureFailed, Subject

LOAD_TIMEOUT_S = 30.0
"""An engine under full load takes its time for a page of counts."""
ONCE = RestartPolicy(max_early_deaths=1, stable_s=float("inf"))


class Trials:
    """`ties`: what else a start in this engine's place depends on (its turn, its memory)."""

    def __init__(self, launcher: Launcher, prober: Prober, logs: Path, ties: Callable[[str], Ties]) -> None:
        self._launcher = launcher
        self._prober = prober
        self._logs = logs
        self._ties = ties

    @asynccontextmanager
    async def engine(self, engine_id: str, backend: Backend, tell: Tell) -> AsyncIterator[Subject]:
        """Ready, until the block ends. Raises MeasureFailed when it does not start."""
        path = self._logs / f"{engine_id.replace('/', '_')}.tune.log"
        log = LogRing(path)
        settled = asyncio.Event()

        async def announce(status: Status) -> None:
            if status.state in (State.READY, State.FAILED, State.STOPPED):  # stopped: not let in
                settled.set()
            elif status.state is State.STARTING and status.detail:
                tell(status.detail)

        life = EngineLife(backend, self._launcher, self._prober, log, announce, ties=self._ties(engine_id), policy=ONCE)
        task = asyncio.create_task(life.run(), name=f"trial of {engine_id}")
        life.start()
        try:
            await settled.wait()
            if life.status.state is not State.READY:
                raise MeasureFailed(f"an engine to be measured did not start: {life.status.detail} (all of it: {path})")
            yield self._subject(life, backend)
        except ProbeFailed as exc:
            raise MeasureFailed(f"an engine to be measured stopped answering: {exc} (its output: {path})") from exc
        finally:
            life.close(0.0)
            await asyncio.wait({task})
            log.close()

    def _subject(self, life: EngineLife, backend: Backend) -> Subject:
        status = life.status
        model = status.facts.model if status.facts else ""
        call = self._prober.call(status.address, status.secret)
        return Subject(backend, model, call, self._prober.fetch(status.address, status.secret, LOAD_TIMEOUT_S))
