"""What a person has decided so far, one JSON object a line, on disk before the page is answered: a kill loses nothing.

The first line says what the decisions are about; a file about something else is refused, and so is one that another process has open.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetune.dataset.errors import DataUnusable

Entry = dict[str, Any]


class Journal:
    """A context manager. `entries` are those that were there, in order. Raises DataUnusable, and OSError where the disk refuses."""

    def __init__(self, path: Path, head: Mapping[str, Any], about: tuple[str, ...]) -> None:
        """`head` is written where the file is new; in one that is there, its fields named in `about` must be the same."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._take()
            self.head, self.entries = self._begin(head, about)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, entry: Mapping[str, Any]) -> None:
        """It is on the disk when this returns; where it cannot be, nothing of it is left."""
        line = memoryview(json.dumps(entry).encode() + b"\n")
        size = os.fstat(self._fd).st_size
        try:
            while line:
                line = line[os.write(self._fd, line) :]
            os.fsync(self._fd)
        except OSError as exc:
            os.ftruncate(self._fd, size)
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._fd = -1  # threads that still run must not write to what gets its number next

    def _take(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise DataUnusable(f"{self.path} is open in another forgegate: end that one first") from exc

    def _begin(self, head: Mapping[str, Any], about: tuple[str, ...]) -> tuple[Entry, list[Entry]]:
        lines = list(self._whole_lines())
        if not lines:
            self.append(head)
            return dict(head), []
        found = lines[0]
        if found.get("format") != head["format"]:
            raise DataUnusable(f"{self.path} is something else ({head['format']} is expected): move it away")
        for name in about:
            if found.get(name) != head[name]:
                raise DataUnusable(
                    f"{self.path} was begun with another {name} ({found.get(name)}, not {head[name]}): go on with that one, "
                    "or move the file away to begin anew"
                )
        return found, lines[1:]

    def _whole_lines(self) -> Iterator[Entry]:
        """A last line without its end was being written when the machine stopped: it goes."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.ftruncate(self._fd, whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
            except ValueError as exc:
                raise DataUnusable(
                    f"{self.path}, line {number}: it is no JSON; mend it, or move the file away"
                ) from exc
            if not isinstance(entry, dict):
                raise DataUnusable(f"{self.path}, line {number}: it is no object; mend it, or move the file away")
            yield entry


def content_digest(path: Path) -> str:
    """sha256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
