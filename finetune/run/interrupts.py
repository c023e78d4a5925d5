"""Ctrl-C and its kin, while a training process runs: the first asks it for a checkpoint, the second ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from finetune.run.attempt import Attempt

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORDS = b"\nstopping: a checkpoint is saved after this step; Ctrl-C again ends it at once\n"
_EARLY = b"\nstopping: there is nothing new to save; Ctrl-C again ends it at once\n"


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, where no training process runs that a checkpoint could be asked of."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def terminable() -> Iterator[None]:
    """Terminated is raised in the block, so that it ends what it has started. Inside, Interrupts may take over for a while."""
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        cancel = signal.getsignal(signal.SIGINT)
        if not (_is_in_loop() and callable(cancel)):
            raise Terminated(number)
        cancel(signal.SIGINT, frame)

    before = {each: signal.signal(each, end) for each in _catchable(SIGNALS[1:])}
    try:
        yield
    except KeyboardInterrupt as exc:
        if received and not isinstance(exc, Terminated):
            raise Terminated(received[0]) from exc
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _is_in_loop() -> bool:
    """Whether asyncio runs here, whose tasks are cancelled as Ctrl-C does it: what is raised amid its loop becomes a traceback."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _catchable(signals: Sequence[signal.Signals]) -> list[signal.Signals]:
    """Not those that were ignored when we were started: nohup means it. None outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]


class Interrupts:
    """A context manager. `received` is the first signal that came, None while none has."""

    def __init__(self, tell: Callable[[bytes], Any] = lambda words: os.write(2, words)) -> None:
        self.received: signal.Signals | None = None
        self.is_stepping = False
        """Whether the attempt that is followed trains by now, so that there is something to save."""
        self._tell = tell
        self._attempt: Attempt | None = None
        self._before: dict[signal.Signals, Any] = {}

    def follow(self, attempt: Attempt | None) -> None:
        """Whom a signal reaches from now on; one that has come already reaches it at once."""
        self._attempt = attempt
        self.is_stepping = False
        if attempt is not None and self.received is not None:
            attempt.stop()

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._handle) for each in _catchable(SIGNALS)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Runs between two steps of the main thread, perhaps amid a print: it does not print the usual way itself."""
        is_first = self.received is None
        if is_first:
            self.received = signal.Signals(number)
        if self._attempt is None:
            return
        if is_first:
            with suppress(OSError):  # whoever read it was ended by the same signal
                self._tell(_WORDS if self.is_stepping else _EARLY)
            self._attempt.stop()
        else:
            self._attempt.kill()
