"""A file of lines that several processes append to, and that is rotated: FILE, FILE.1, FILE.2, ...

Every writer looks before it writes whether the path still names the file that it has open. Whoever finds that full renames it,
under its lock; the others see the new one next time. Readable by its owner only.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_MODE = 0o600


class LogFile:
    """One writer's view of it; for one thread."""

    def __init__(self, path: Path, max_bytes: int, num_kept: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._num_kept = num_kept
        """Full ones that are kept beside the one that is written."""
        self._fd = -1
        self._is_torn = False
        """The last write stopped in the middle of a line."""

    def append(self, lines: bytes) -> None:
        """Whole lines, in one write where the disk takes it. Raises OSError."""
        fd = self._open()
        pending = memoryview(b"\n" + lines if self._is_torn else lines)
        while pending:
            pending = pending[os.write(fd, pending) :]
            self._is_torn = bool(pending)

    def check(self) -> None:
        """Whether it can be written; makes it where there is none. Raises OSError."""
        self._open_anew()
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        """The file that the path names, with room in it."""
        if self._fd < 0 or not self._is_current():
            self._open_anew()
        if os.fstat(self._fd).st_size >= self._max_bytes:
            self._rotate()
            self._open_anew()
        return self._fd

    def _open_anew(self) -> None:
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        os.fchmod(self._fd, _MODE)
        self._is_torn = False

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if self._is_current():  # nobody else was quicker
                for number in range(self._num_kept - 1, 0, -1):
                    _rename(self._numbered(number), self._numbered(number + 1))
                _rename(self._path, self._numbered(1))
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _rename(path: Path, to: Path) -> None:
    try:
        path.replace(to)
    except FileNotFoundError:
        return
