"""Brings every engine to what it should hold without being asked: when it is up, before it takes traffic, and when an alias moved."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.control.loads import LoadFailed, Loads, start

if TYPE_CHECKING:
    from gateway.control.residents import Residents

EQUIP_S = 60.0
"""How long an engine's traffic waits for its adapters; the rest is loaded beside it."""
NOT_READY_RETRY_S = 2.0
RETRY_S = 10.0


class Reconciler:
    """One round at a time for each engine; a kick during a round makes one more."""

    def __init__(self, residents: Residents) -> None:
        self._residents = residents
        self._rounds: dict[Loads, asyncio.Task[None]] = {}
        self._kicked: set[Loads] = set()

    async def equip(self, loads: Loads) -> None:
        """Until it holds what it should; bounded. What fails does not keep the engine from its other traffic."""
        if loads in self._rounds:  # begun before it was paused, and not over yet
            self.kick(loads)
        else:
            self._begin(loads, self._first(loads))
        with suppress(TimeoutError):
            async with asyncio.timeout(EQUIP_S):
                while loads in self._rounds:
                    await asyncio.wait({self._rounds[loads]})

    def kick(self, loads: Loads) -> None:
        """Soon."""
        if loads in self._rounds:
            self._kicked.add(loads)
        elif not loads.is_closed:
            self._begin(loads, self._round(loads))

    def _begin(self, loads: Loads, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._rounds[loads] = task = start(work, self._residents.tasks, f"reconcile {loads.engine_id}")
        task.add_done_callback(lambda _: self._done(loads))
        return task

    def _done(self, loads: Loads) -> None:
        del self._rounds[loads]
        if loads in self._kicked:
            self._kicked.discard(loads)
            self._again(loads)

    async def _first(self, loads: Loads) -> None:
        with suppress(LoadFailed):
            await loads.check()  # strangers go, whatever should be there
        await self._round(loads)

    async def _round(self, loads: Loads) -> None:
        """The reconciler's boundary: a bug here must not look like an engine that holds what it should."""
        try:
            retry_s = await self._bring_all(loads)
        except Exception:  # noqa: BLE001 - named boundary: logged, tried again
            traceback.print_exc()
            retry_s = RETRY_S
        if retry_s is not None and not loads.is_closed:
            asyncio.get_running_loop().call_later(retry_s, self._again, loads)

    def _again(self, loads: Loads) -> None:
        if self._residents.loads.get(loads.engine_id) is loads:
            self.kick(loads)

    async def _bring_all(self, loads: Loads) -> float | None:
        """Returns when to try again what failed for now; None where nothing did."""
        tried: set[str] = set()
        hopeless = set(loads.failed)
        retry_s: float | None = None
        while not loads.is_closed:
            wanted = self._residents.wanted(loads, hopeless)
            version = next((item for item in wanted if item.name not in loads.held and item.name not in tried), None)
            if version is None:
                break
            tried.add(version.name)
            try:
                await self._residents.require(version)
                await loads.bring(version, spared=frozenset(item.name for item in wanted))
            except LoadFailed as exc:
                if exc.retry_s is None:
                    hopeless.add(version.name)
                else:
                    retry_s = max(RETRY_S, exc.retry_s)
        return retry_s
