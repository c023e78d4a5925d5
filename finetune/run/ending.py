"""What the end of a training process means. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DONE, STOPPED, GUARD, REFUSED, OOM, FAILED = "done", "stopped", "guard", "refused", "oom", "failed"
_BY_CODE = {0: DONE, 1: GUARD, 2: REFUSED, 3: FAILED, 4: OOM, 128 + signal.SIGTERM: STOPPED}
_TOLD_BY = {DONE: "done", GUARD: "guard", REFUSED: "refused", FAILED: "failed", OOM: "oom", STOPPED: "stopped"}


@dataclass(frozen=True, slots=True)
class Ended:
    """What the system says of it."""

    code: int
    """Negative for a signal."""
    is_asked: bool = False
    """Whether we asked it to end."""
    num_oom_kills: int | None = 0
    """By the kernel while it ran; None where that is not known."""
    last_words: str = ""
    """The last line of its log."""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: str
    message: str = ""
    event: Mapping[str, Any] = field(default_factory=dict)
    """The one that told it."""


def outcome_of(ended: Ended, told: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """`told`: the latest event of each kind."""
    status = _status(ended)
    event = told.get(_TOLD_BY[status], {})
    message = str(event.get("message", ""))
    if status == OOM and not event:
        message = _killed_words(ended) if ended.code < 0 else "one of the processes could not have what it needed"
    if status == GUARD and not event.get("is_fatal"):  # Python itself ends with 1 after an error that nobody caught
        status, event = FAILED, {}
    if status in (FAILED, REFUSED) and not event:
        message = _silent_words(ended)
    if status == DONE and not event:
        return Outcome(FAILED, "the training process ended well, but without a result")
    return Outcome(status, message, event)


def _status(ended: Ended) -> str:
    if ended.code in _BY_CODE:
        return _BY_CODE[ended.code]
    if ended.is_asked:
        return STOPPED
    if ended.code == -signal.SIGTERM:
        return STOPPED
    if ended.code == -signal.SIGKILL and ended.num_oom_kills != 0:
        return OOM
    return FAILED


def _killed_words(ended: Ended) -> str:
    sure = (
        "The kernel ended the training process"
        if ended.num_oom_kills
        else "The training process was killed, likely by the kernel"
    )
    return f"{sure}: the machine's memory is exhausted"


def _silent_words(ended: Ended) -> str:
    if ended.code == -signal.SIGKILL:
        return "the training process was killed from outside (SIGKILL)"
    how = f"exit code {ended.code}" if ended.code >= 0 else f"killed by {signal.Signals(-ended.code).name}"
    words = f", its last words: {ended.last_words}" if ended.last_words else ""
    return f"the training process ended without saying why ({how}{words})"


def failure_words(message: str) -> str:
    """A full disk is said in words of ours, whichever library met it."""
    if "No space left on device" in message or "Disk quota exceeded" in message:
        return f"the disk is full: free some space, then go on ({message})"
    return message
