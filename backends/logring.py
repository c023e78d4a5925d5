"""A child's output: the last lines in memory, all of it in a file of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 4096
"""Longer lines are cut: an engine that prints a whole prompt must not fill the memory of the control process."""


def _last_drawn(line: bytes) -> bytes:
    """What a terminal shows of a line that was drawn again and again, each time from its start."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class LogRing:
    """Splits what a child writes into lines, keeps the newest, appends each to a file.

    A disk that refuses costs the file, never the engine: the ring goes on.
    """

    def __init__(self, path: Path | None = None, num_lines: int = 500, max_bytes: int = 8 * 1024 * 1024) -> None:
        self.on_line: Callable[[str], None] | None = None
        """Hears every line that the child writes, and each state of a line that it draws again (a bar of progress)."""
        self._lines: deque[str] = deque(maxlen=num_lines)
        self._path = path
        self._max_bytes = max_bytes
        self._partial = b""
        self._file: BinaryIO | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes as they come from the child, whole lines or not."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._take(_last_drawn(line))
        if b"\r" in self._partial:
            drawn = _last_drawn(self._partial)
            self._partial = b"\r" + drawn + (b"\r" if self._partial.endswith(b"\r") else b"")
            self._hear(drawn)
        if len(self._partial) > MAX_LINE_BYTES:
            self.flush()

    def flush(self) -> None:
        """The child closed its output: an unfinished line is a line."""
        partial, self._partial = self._partial, b""
        if partial:
            self._take(_last_drawn(partial))

    def _take(self, line: bytes) -> None:
        self.add(line.decode("utf-8", "replace"))
        self._hear(line)

    def _hear(self, line: bytes) -> None:
        if self.on_line is not None and line:
            self.on_line(line.decode("utf-8", "replace")[:MAX_LINE_BYTES])

    def add(self, line: str) -> None:
        line = line[:MAX_LINE_BYTES]
        self._lines.append(line)
        self._append(line)

    def tail(self, num_lines: int) -> tuple[str, ...]:
        """The newest lines, oldest first."""
        return tuple(self._lines)[-num_lines:] if num_lines > 0 else ()

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: str) -> None:
        if self._path is None:
            return
        try:
            file = self._open()
            file.write(line.encode("utf-8", "replace") + b"\n")
            if file.tell() > self._max_bytes:
                self._rotate()
        except OSError as exc:
            self._lines.append(f"(log file {self._path} given up: {exc.strerror or exc})")
            self._path = self._file = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            assert self._path is not None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        return self._file

    def _rotate(self) -> None:
        assert self._path is not None
        assert self._file is not None
        self._file.close()
        self._file = None
        self._path.replace(self._path.with_suffix(self._path.suffix + ".1"))
