"""A file that is not whole yet: `<digest>.part`, with `<digest>.json` beside it that says what its bytes are of.

It becomes the file by a rename, after its digest was found right: under its final name a file is whole or absent. Whatever is
killed in between leaves a part that the next process goes on with, or that fails the checksum and is fetched anew.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from backends.hub.checksum import Checksum
from backends.hub.errors import StoreFailed
from backends.hub.listing import RemoteFile

READ_BYTES = 1 << 20


class Partial:
    """Open for writing by one process at a time (the caller holds the model's lock). Methods raise StoreFailed."""

    def __init__(self, folder: Path, file: RemoteFile) -> None:
        self.file = file
        self.path = part_of(folder, file.digest)
        self._state = self.path.with_suffix(".json")
        self.etag = ""
        """What the server called the content that these bytes are of."""
        self.num_bytes = 0
        """Written, and in the checksum."""
        self._checksum = Checksum(file.digest, file.size_bytes)
        self._fd = -1

    def __enter__(self) -> Self:
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if os.fstat(self._fd).st_size > self.file.size_bytes:
                os.ftruncate(self._fd, 0)
            self.etag = self._read_etag()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @property
    def present_bytes(self) -> int:
        """In the file; more than `num_bytes` until `take_in` has read them."""
        return os.fstat(self._fd).st_size

    @property
    def is_full(self) -> bool:
        return self.num_bytes == self.file.size_bytes

    @property
    def is_right(self) -> bool:
        return self._checksum.is_right

    @property
    def fault(self) -> str:
        return self._checksum.words

    def take_in(self) -> None:
        """Read what an earlier process left into the checksum."""
        with storing(self.path):
            while chunk := os.pread(self._fd, READ_BYTES, self.num_bytes):
                self._checksum.update(chunk)
                self.num_bytes += len(chunk)

    def write(self, chunk: bytes) -> None:
        """Append."""
        view = memoryview(chunk)
        with storing(self.path):
            while view:
                written = os.pwrite(self._fd, view, self.num_bytes)
                self._checksum.update(view[:written])
                self.num_bytes += written
                view = view[written:]

    def restart(self) -> None:
        """Forget all bytes."""
        with storing(self.path):
            os.ftruncate(self._fd, 0)
        self.num_bytes, self._checksum = 0, Checksum(self.file.digest, self.file.size_bytes)

    def note_etag(self, etag: str) -> None:
        """For whoever goes on; before the bytes that it names are written."""
        if etag == self.etag:
            return
        with storing(self._state):
            temporary = self._state.with_suffix(".tmp")
            temporary.write_text(
                json.dumps({"path": self.file.path, "size": self.file.size_bytes, "etag": etag}), encoding="utf-8"
            )
            temporary.replace(self._state)
        self.etag = etag

    def become(self, target: Path) -> None:
        """Take the final name. Only when it `is_full` and `is_right`."""
        assert self.is_full
        assert self.is_right
        with storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.fsync(self._fd)
            self.path.replace(target)
            sync_folder(target.parent)
            self._state.unlink(missing_ok=True)

    def _read_etag(self) -> str:
        try:
            etag = json.loads(self._state.read_bytes())["etag"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""  # then it is asked for without a condition; the checksum decides
        return etag if isinstance(etag, str) and etag.isascii() and etag.isprintable() else ""


def part_of(folder: Path, digest: str) -> Path:
    """By content: it does not matter under which name or commit a pull began."""
    return folder / f"{digest.replace(':', '-')}.part"


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Errors of the disk as StoreFailed."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFailed(
                f"the disk is full: {path.parent} takes no more; free some space or set FORGEGATE_HOME to another disk"
            ) from exc
        raise StoreFailed(f"{exc.filename or path}: {exc.strerror or exc}") from exc


def sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only when the folder is written too."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
