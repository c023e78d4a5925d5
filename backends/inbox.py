"""The events of one engine's life, in the order in which they came."""

from __future__ import annotations

import asyncio

from backends.status import Broken, Event


class Inbox:
    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        self._events.put_nowait(event)

    async def next(self, launch: int, timeout_s: float | None) -> Event | None:
        """The next one that belongs to this launch, or to none; None after `timeout_s`. A helper's bug is raised."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    event = await self._events.get()
                    if isinstance(event, Broken):
                        raise event.error
                    if getattr(event, "launch", launch) == launch:
                        return event
        except TimeoutError:
            return None
