"""Versions that cannot be had now: the reason that clients are told, until it is worth trying again. Owner: `residents`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

LASTING_RETRY_S = 60
"""What a client is told to wait where nothing changes by itself."""


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    until_s: float | None
    """Clock reading; None: until something is done about it."""


class Refusals:
    """`expired` is told when one has run out, so that the workers hear of it."""

    def __init__(self, expired: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._expired = expired
        self._clock = clock
        self._by_name: dict[str, Refusal] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def put(self, name: str, reason: str, retry_s: float | None) -> None:
        self.drop(name)
        self._by_name[name] = Refusal(reason, None if retry_s is None else self._clock() + retry_s)
        if retry_s is not None:
            self._timers[name] = asyncio.get_running_loop().call_later(retry_s, self._run_out, name)

    def drop(self, name: str) -> None:
        self._by_name.pop(name, None)
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def drop_passing(self) -> None:
        """Something changed: what may be had by and by may be had now."""
        for name in [name for name, refusal in self._by_name.items() if refusal.until_s is not None]:
            self.drop(name)

    def of(self, name: str) -> tuple[str, int]:
        """The reason, empty for none, and the seconds that a client should wait."""
        refusal = self._by_name.get(name)
        if refusal is None:
            return "", 1
        if refusal.until_s is None:
            return refusal.reason, LASTING_RETRY_S
        return refusal.reason, max(1, math.ceil(refusal.until_s - self._clock()))

    def close(self) -> None:
        for name in list(self._by_name):
            self.drop(name)

    def _run_out(self, name: str) -> None:
        self.drop(name)
        self._expired()
