"""Looks at stored versions from time to time: an engine may read one again, unasked, long after it was proven.

Every round looks for files that changed; each version is read whole in one round of FULL_EVERY. A damaged one goes off the engines, and
is refused with the reason until it is published anew.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable

from gateway.control.desired import Version
from gateway.control.library import Library

INTERVAL_S = 300.0
FULL_EVERY = 24
"""Rounds: two hours."""


class Inspection:
    """`take_off` is called in every round in which a version is found damaged."""

    def __init__(
        self,
        library: Library,
        versions: Callable[[], Iterable[Version]],
        take_off: Callable[[Version], Awaitable[None]],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._library = library
        self._versions = versions
        self._take_off = take_off
        self._interval_s = interval_s
        self._num_rounds = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """A round from time to time, until `close`."""
        self._task = asyncio.create_task(self._run(), name="inspect versions")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.round()
            except Exception:  # noqa: BLE001 - named boundary: logged, tried again in the next round
                traceback.print_exc()

    async def round(self) -> None:
        """All versions, one after another."""
        self._num_rounds += 1
        for number, version in enumerate(sorted(self._versions(), key=lambda version: version.created)):
            is_thorough = (number + self._num_rounds) % FULL_EVERY == 0
            if await self._library.inspect(version, is_thorough):
                await self._take_off(version)
