"""What others have to say about one engine's life: whether it may start, who uses it, how long starts take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from backends.base import Identity, Tell

START, WAKE = "start", "wake"


class Gate(Protocol):
    """Where an engine waits for its memory, and for its turn, before it starts or wakes."""

    async def enter(self, tell: Tell) -> str:
        """Until it may; returns why it may not, else nothing. `tell` hears whom it waits for. May be cancelled."""
        ...

    def leave(self) -> None:
        """The start is over, in whichever way, or was not begun."""
        ...


class Times(Protocol):
    """How long an engine's starts took, in seconds; `what` is START or WAKE."""

    def last(self, what: str) -> float | None: ...
    def note(self, what: str, seconds: float) -> None: ...


class OpenGate:
    async def enter(self, tell: Tell) -> str:
        return ""

    def leave(self) -> None:
        return None


class NoTimes:
    def last(self, what: str) -> float | None:
        return None

    def note(self, what: str, seconds: float) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Ties:
    refuse: Callable[[Identity], str] = lambda _: ""
    """Why these weights may not serve here, or nothing."""
    num_running: Callable[[], int] = lambda: 0
    """Requests of clients that the engine answers now."""
    gate: Gate = field(default_factory=OpenGate)
    times: Times = field(default_factory=NoTimes)
