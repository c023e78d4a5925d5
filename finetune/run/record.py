"""What happened in a run, kept in its folder after every change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from finetune.run.folder import RunFolder

VERSION = 1


@dataclass(slots=True)
class AttemptRecord:
    """Of one training process."""

    number: int
    began: str
    resumed_from: int | None = None
    """Step of the checkpoint that it began with."""
    step_down: str = ""
    """What was changed against the attempt before it, to save memory."""
    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    num_processes: int = 1
    predicted_bytes: int | None = None
    peak_bytes: int | None = None
    num_steps: int = 0
    """The last step that it finished, of the whole run."""
    ended: str = ""
    seconds: float = 0.0
    status: str = "running"
    """`done`, `stopped`, `guard`, `refused`, `oom` or `failed`."""
    exit_code: int | None = None
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Record:
    """Of the whole run; `keep` writes it."""

    folder: RunFolder
    began: str
    status: str = "running"
    attempts: list[AttemptRecord] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    """Counts of rows and tokens."""
    files: dict[str, Any] = field(default_factory=dict)
    """Digests of the data and sizes of the base's files, which a resume compares."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """Of the guards."""
    result: dict[str, Any] = field(default_factory=dict)
    exported: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    _began_s: float = 0.0

    @classmethod
    def new(cls, folder: RunFolder, clock: Callable[[], float] = time.time) -> Record:
        return cls(folder, stamp(clock()), clock=clock)

    @classmethod
    def load(cls, folder: RunFolder) -> Record:
        """Raises RecipeUnusable."""
        stored = folder.read_json(folder.record)
        record = cls(folder, stored["began"], stored["status"])
        for name in ("data", "files", "findings", "result", "exported", "published"):
            setattr(record, name, stored.get(name) or getattr(record, name))
        record.attempts = [AttemptRecord(**each) for each in stored["attempts"]]
        return record

    @property
    def attempt(self) -> AttemptRecord:
        """The latest."""
        return self.attempts[-1]

    @property
    def last_step(self) -> int:
        return max((each.num_steps for each in self.attempts), default=0)

    def begin(self, **fields: Any) -> AttemptRecord:
        """A further attempt."""
        for each in self.attempts:
            if each.status == "running":  # its parent was killed before it could say how it ended
                each.status, each.message = "failed", each.message or "it was killed together with what watched it"
        self._began_s = self.clock()
        self.attempts.append(AttemptRecord(len(self.attempts) + 1, stamp(self.clock()), **fields))
        self.status = "running"
        return self.attempt

    def end(self, status: str, exit_code: int | None, message: str) -> None:
        """Of the latest attempt, and of the run unless another follows."""
        attempt = self.attempt
        attempt.status, attempt.exit_code, attempt.message = status, exit_code, message
        attempt.ended = stamp(self.clock())
        attempt.seconds = round(self.clock() - self._began_s, 1)
        self.status = status

    def as_json(self) -> dict[str, Any]:
        last = self.attempts[-1] if self.attempts else None
        return {
            "version": VERSION,
            "status": self.status,
            "began": self.began,
            "ended": last.ended if last else "",
            "predicted_bytes": last.predicted_bytes if last else None,
            "peak_bytes": last.peak_bytes if last else None,
            "data": self.data,
            "attempts": [each.as_json() for each in self.attempts],
            "findings": self.findings,
            "result": self.result,
            "exported": self.exported,
            "published": self.published,
            "files": self.files,
        }

    def keep(self) -> None:
        """Raises FolderUnusable."""
        self.folder.write_json(self.folder.record, self.as_json())


def stamp(seconds: float) -> str:
    """`2026-08-01T12:34:56Z`"""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
