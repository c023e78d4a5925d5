"""Why and how an engine takes no more requests, and why it rests then, as its life remembers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Phase = Callable[[], Awaitable["Phase | None"]]
"""A state of an engine's life at work; returns the next one, None at the end."""


@dataclass(slots=True)
class Leaving:
    """Where an engine that drains goes, and how long its requests may keep it."""

    after: Phase
    doing: str
    done: str
    patience_s: float
    grace_s: float | None = None
    """From SIGTERM to SIGKILL; None: what is left of the patience."""
    level: int = 0
    is_yielding: bool = False
    """Requests that outlast the patience keep it ready; else they are cut."""
    is_held: bool = False
    is_failed_start: bool = False
    """`done` is why a start came to nothing."""

    def rest_words(self, is_paused: bool) -> str:
        """Why it rests, and after a failed start what goes on."""
        if not self.is_failed_start:
            return self.done
        return f"{self.done}; the next request {'after a pause ' if is_paused else ''}tries again"
