"""SIGTERM and SIGINT: between steps they are a wish that is granted with a whole checkpoint, before the first one they end the attempt."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopAsked(BaseException):
    """No Exception: libraries that are being imported must not swallow it."""


class Stop:
    """One per process."""

    def __init__(self) -> None:
        self.is_asked = False
        self._is_deferred = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While the block runs, `is_asked` is all that a signal does."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def raise_if_asked(self) -> None:
        """Raises StopAsked."""
        if self.is_asked:
            raise StopAsked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        if not self._is_deferred:
            raise StopAsked
