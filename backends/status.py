"""What may be known of an engine's life, its pace, and the events that drive it. Values only."""

from __future__ import annotations

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
    BACKOFF = "backoff"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Timing:
    """All waits of an engine's life, in seconds."""

    start_timeout_s: float = 600.0
    """From the child's start until it is ready; loading a large model takes minutes."""
    start_poll_s: float = 0.1
    probe_interval_s: float = 2.0
    probe_timeout_s: float = 5.0
    max_missed_probes: int = 3
    """In a row: a ready engine that does not answer this often is killed and started again."""
    stop_grace_s: float = 12.0
    """From SIGTERM to SIGKILL; the engine finishes running requests in it."""


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
    ready_since: float | None = None
    """Clock reading when it became ready."""
    retry_after_s: float = 1.0
    facts: Facts | None = None
    identity: Identity = field(default_factory=Identity)


Announce = Callable[[Status], Awaitable[None]]
"""Told every new status, and awaited: an engine drains only once nobody sends it new requests."""


@dataclass(frozen=True, slots=True)
class Start:
    pass


@dataclass(frozen=True, slots=True)
class Restart:
    pass


@dataclass(frozen=True, slots=True)
class Stop:
    grace_s: float
    is_last: bool


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


Event = Broken | Start | Restart | Stop | ProbeNow | Preparing | Prepared | Exited | Probed
