"""What happens during a pull, for whoever shows it. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another process is at the same model; we go on when it is done."""

    name: str
    pid: int
    """0 where it is not known."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What will be fetched."""

    name: str
    """With the label that was chosen."""
    repo: str
    commit: str
    why: str
    """Why these files, half a sentence."""
    num_files: int
    total_bytes: int
    present_bytes: int
    """Of them already here, partial files included."""
    folder: str


@dataclass(frozen=True, slots=True)
class Checking:
    """The bytes that an earlier pull left are read again, for the checksum."""

    path: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Downloading:
    """A file is asked for, from `offset_bytes` on."""

    path: str
    size_bytes: int
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """So much of a file is here."""

    path: str
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Retrying:
    """It failed, and is tried again."""

    path: str
    """Empty: a question to the hub."""
    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A file is whole, checked, and under its final name."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of an older commit stay: a running gateway serves them."""

    folder: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The model is here."""

    name: str
    path: str
    """What an engine is given."""
    num_bytes: int
    is_new: bool
    """Whether anything had to be done."""


Event = Waiting | Listed | Checking | Downloading | Advanced | Retrying | Stored | Kept | Finished
Tell = Callable[[Event], None]
