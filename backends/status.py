"""What may be known of an engine's life, its pace, and the events that drive it. Values only."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from backends.base import LOOPBACK, Address, Facts, Identity
from backends.errors import BackendError, ProbeFailed


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ASLEEP = "asleep"
    BACKOFF = "backoff"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Timing:
    """All waits of an engine's life, in seconds."""

    start_timeout_s: float = 600.0
    """From the child's start until it is ready, and for waking up; loading a large model takes minutes."""
    start_poll_s: float = 0.1
    probe_interval_s: float = 2.0
    probe_timeout_s: float = 5.0
    max_missed_probes: int = 3
    """In a row: a ready engine that does not answer this often is killed and started again."""
    stop_grace_s: float = 12.0
    """Running requests have it to finish; then the engine is told to end, and killed where it does not."""
    sleep_timeout_s: float = 300.0
    """For falling asleep. Waking up is a start: weights that were dropped are read again."""


@dataclass(frozen=True, slots=True)
class Status:
    """What everybody else may know of an engine."""

    state: State = State.STOPPED
    detail: str = "not started"
    """Why it is not ready, in words for a user."""
    address: Address = field(default_factory=lambda: Address(LOOPBACK, 0))
    secret: str = field(default="", repr=False)
    pid: int | None = None
    num_restarts: int = 0
    num_failed_starts: int = 0
    """For a reason that is known and may pass, want of room among them: who waits for it had better be told than go on waiting."""
    ready_since: float | None = None
    """Clock reading when it became ready."""
    retry_after_s: float = 1.0
    """While it starts: what is left if it takes as long as the last time."""
    is_held: bool = False
    """Drained by command, to stop: no request starts it, another command does."""
    is_paused: bool = False
    """Stopped since its start failed, or stopped or asleep since there was no room for it: no request starts it within
    `retry_after_s`, but a command does.
    """
    sleep_level: int = 0
    """While asleep, how deep; see `SleepCalls.levels`."""
    facts: Facts | None = None
    identity: Identity = field(default_factory=Identity)

    @property
    def may_be_wanted(self) -> bool:
        """Whether a request may start or wake it, where it does not run."""
        return not self.is_held and not self.is_paused and self.state is not State.FAILED


Announce = Callable[[Status], Awaitable[None]]
"""Told every new status, and awaited: an engine drains only once nobody sends it new requests."""


@dataclass(frozen=True, slots=True)
class Start:
    """Also ends a sleep."""

    is_wanted: bool = False
    """By a request, which cannot start what was drained by command or pauses, nor what has failed."""


@dataclass(frozen=True, slots=True)
class Restart:
    pass


@dataclass(frozen=True, slots=True)
class Stop:
    grace_s: float
    is_last: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more traffic; once the running requests have ended, sleep or stop."""

    why: str
    level: int = 0
    """How deep to sleep; 0: stop."""
    patience_s: float = math.inf
    """Whatever still runs then keeps the engine ready."""
    is_command: bool = False
    """It overrides one that is none. No request starts afterwards what was to stop."""


@dataclass(frozen=True, slots=True)
class ProbeNow:
    pass


@dataclass(frozen=True, slots=True)
class Preparing:
    """What is being done before the start, in words."""

    launch: int
    text: str


@dataclass(frozen=True, slots=True)
class Prepared:
    launch: int
    outcome: Identity | BackendError


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may start now, or wake; `problem`: it may not, for this reason."""

    launch: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Progressed:
    """What its output says of the start."""

    launch: int
    text: str


@dataclass(frozen=True, slots=True)
class Turned:
    """It fell asleep, or woke up; or why not."""

    launch: int
    error: BackendError | None = None


@dataclass(frozen=True, slots=True)
class Exited:
    launch: int
    code: int


@dataclass(frozen=True, slots=True)
class Probed:
    launch: int
    outcome: Facts | Refused | ProbeFailed


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A helper ended with an error that nobody foresaw."""

    error: BaseException


Event = (
    Broken
    | Start
    | Restart
    | Stop
    | Drain
    | ProbeNow
    | Preparing
    | Prepared
    | Admitted
    | Progressed
    | Turned
    | Exited
    | Probed
)
