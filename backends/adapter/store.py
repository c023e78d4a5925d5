"""Versions on disk, by digest. Standard library and msgspec: the gateway reads it, too.

<root>/<sha256>/            a version: whole or absent, and read-only
<root>/.work-*/             what is being made; locked by the process that makes it, removed by the next one when that is dead
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backends.adapter import manifest as manifests
from backends.adapter.manifest import MANIFEST, Manifest
from backends.adapter.sealed import OPEN_MODE, opened, remove_tree, seal

_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORK = ".work-"


@dataclass(frozen=True, slots=True)
class Work:
    """A folder of our own in the store; whoever holds `lock` (a descriptor) keeps it from being removed."""

    folder: Path
    lock: int


@dataclass(frozen=True, slots=True)
class Store:
    """Methods raise OSError where the disk refuses, VersionUnusable for a version that is not whole."""

    root: Path

    def version(self, digest: str) -> Path:
        """Where it lies, or would."""
        return self.root / digest

    def versions(self) -> list[str]:
        """Digests of all that are here."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if _DIGEST.fullmatch(path.name) and path.is_dir())

    def find(self, digest: str) -> Manifest | None:
        """None where it is not here; its files are held against the digest."""
        return manifests.verify(self.version(digest)) if self.version(digest).is_dir() else None

    @contextmanager
    def working(self) -> Iterator[Work]:
        """A folder that is gone after the block, or, if we are killed, before the next one's."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.sweep()
        work = self._new_work()
        try:
            yield work
        finally:
            remove_tree(work.folder)
            os.close(work.lock)

    def sweep(self) -> None:
        """Remove what processes left that were killed."""
        for path in self.root.glob(f"{_WORK}*"):
            with suppress(OSError):  # gone meanwhile
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(path)
                finally:
                    os.close(fd)

    def put(self, made: Path, digest: str) -> bool:
        """A folder of `working` becomes the version; False where another process was first."""
        for path in made.iterdir():
            _sync(path)
        _sync(made)
        try:
            made.rename(self.version(digest))
        except OSError:
            if self.version(digest).is_dir():
                return False
            raise
        seal(self.version(digest))  # not before: a folder that cannot be written to cannot be moved
        _sync(self.root)
        return True

    def remove(self, digest: str) -> None:
        """All of it at once; nothing where it is not here."""
        with self.working() as work, suppress(FileNotFoundError):
            self.version(digest).chmod(OPEN_MODE)
            self.version(digest).rename(work.folder / "removed")

    def mark(self, digest: str, name: str) -> None:
        """An empty file beside the version's own. Raises FileNotFoundError: it is not here."""
        with opened(self.version(digest)):
            (self.version(digest) / name).touch()

    def unmark(self, digest: str, name: str) -> None:
        with suppress(FileNotFoundError), opened(self.version(digest)):
            (self.version(digest) / name).unlink()

    def attach(self, digest: str, name: str, made: Path) -> Manifest:
        """A file of `working`, derived from the version, becomes a part of it under `name`; the manifest tells its digest."""
        version = self.version(digest)
        with opened(version):
            changed = manifests.read_manifest(version).attached(name, manifests.file_digest(made))
            told = made.with_name(f"{made.name}.{MANIFEST}")
            told.write_bytes(manifests.encode(changed))
            _sync(made)
            _sync(told)
            made.replace(version / name)
            told.replace(version / MANIFEST)
            _sync(version)
        return changed

    def attachment(self, digest: str, name: str) -> Path | None:
        """None where it was never attached, or is not what was attached."""
        version = self.version(digest)
        known = manifests.read_manifest(version).attachments.get(name)
        try:
            is_right = known is not None and manifests.file_digest(version / name) == known
        except FileNotFoundError:
            return None
        return version / name if is_right else None

    def _new_work(self) -> Work:
        while True:
            folder = Path(tempfile.mkdtemp(dir=self.root, prefix=_WORK))
            try:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:  # swept between two calls
                continue
            with suppress(OSError):  # a file system without such locks: then nothing is swept there either
                fcntl.flock(fd, fcntl.LOCK_SH)
            if _is_same(fd, folder):
                return Work(folder, fd)
            os.close(fd)


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _sync(path: Path) -> None:
    """A file, or a folder's list of names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
