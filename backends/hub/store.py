"""Pulled models on disk.

    <root>/ORG/NAME/<label>[@<revision>]/          a shelf: one model, whatever commit it is at
        manifest.json                              the model that is whole
        unfinished.json                            the one that a pull has begun, and not ended
        <commit, 12 digits>/...                    its files, whole ones only
        partial/                                   files that are not whole yet
    <root>/.locks/                                 one for each shelf, held by whoever changes it; never removed
    <root>/.trash-*                                on the way out

A gateway that serves a model holds a shared lock on its commit's folder (`Lease`); who removes the folder takes it for himself first.
All locks go with the process that holds them, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from backends.hub.errors import ModelInUse
from backends.hub.events import Kept, Tell, Waiting
from backends.hub.gguf import fitting
from backends.hub.listing import RemoteFile
from backends.hub.manifest import Manifest, read_manifest
from backends.hub.names import HubName
from backends.hub.partial import part_of, storing

MANIFEST, UNFINISHED, PARTIAL = "manifest.json", "unfinished.json", "partial"
COMMIT_DIGITS = 12


class Lease:
    """Keeps a model's files where they are, until it is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where one model lies; methods that change it want `locked` around them. Raise StoreFailed."""

    folder: Path
    lock_file: Path
    name: str
    """For people."""

    @property
    def manifest(self) -> Manifest | None:
        """The model that is whole and here."""
        manifest = read_manifest(self.folder / MANIFEST)
        return manifest if manifest is not None and self.is_whole(manifest) else None

    @property
    def unfinished(self) -> Manifest | None:
        """What a pull has begun and not ended; also a model of which files were lost."""
        begun = read_manifest(self.folder / UNFINISHED)
        return begun or (read_manifest(self.folder / MANIFEST) if self.manifest is None else None)

    @property
    def partials(self) -> Path:
        return self.folder / PARTIAL

    def commit_folder(self, manifest: Manifest) -> Path:
        return self.folder / manifest.commit[:COMMIT_DIGITS]

    def path_of(self, manifest: Manifest, file: RemoteFile) -> Path:
        return self.commit_folder(manifest) / manifest.place_of(file)

    def entry_of(self, manifest: Manifest) -> Path:
        """What an engine is given."""
        return self.commit_folder(manifest) / manifest.entry

    def has(self, manifest: Manifest, file: RemoteFile) -> bool:
        try:
            return self.path_of(manifest, file).stat().st_size == file.size_bytes
        except OSError:
            return False

    def is_whole(self, manifest: Manifest) -> bool:
        return all(self.has(manifest, file) for file in manifest.files)

    def present_bytes(self, manifest: Manifest) -> int:
        """Of an unfinished model: in whole files and in parts."""
        return sum(
            file.size_bytes if self.has(manifest, file) else _size(part_of(self.partials, file.digest))
            for file in manifest.files
        )

    @contextmanager
    def locked(self, tell: Tell | None = None) -> Iterator[None]:
        """One process at a time; another one's work is waited for, or, without `tell`, refused with ModelInUse."""
        with storing(self.lock_file):
            self.lock_file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storing(self.lock_file):
                self._take(fd, tell)
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(fd)

    def _take(self, fd: int, tell: Tell | None) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 20, 0).strip()
            pid = int(text) if text.isdigit() else 0
            if tell is None:
                raise ModelInUse(
                    f"{self.name} is being pulled{f' (pid {pid})' if pid else ''}: wait, or stop that"
                ) from None
            tell(Waiting(self.name, pid))
            fcntl.flock(fd, fcntl.LOCK_EX)

    def lease(self, manifest: Manifest) -> Lease | None:
        """None where the files are being removed at this moment."""
        return _lease(self.commit_folder(manifest))

    def tidy(self, tell: Tell) -> None:
        """Remove what belongs to neither the present model nor an unfinished one: older commits, parts."""
        held = [manifest for manifest in (self.manifest, self.unfinished) if manifest is not None]
        commits = {self.commit_folder(manifest) for manifest in held}
        for folder in self._commit_folders():
            if folder in commits:
                continue
            with _exclusively([folder]) as is_free:
                if is_free:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    tell(Kept(str(folder)))
        if self.unfinished is None:
            shutil.rmtree(self.partials, ignore_errors=True)

    def require_unused(self) -> None:
        """Raises ModelInUse."""
        with _exclusively(self._commit_folders()) as is_free:
            self._require(is_free)

    def _require(self, is_free: bool) -> None:
        if not is_free:
            raise ModelInUse(f"{self.name} is served by a running gateway: stop that first")

    def remove(self) -> None:
        """All of it. Raises ModelInUse."""
        with _exclusively(self._commit_folders()) as is_free, storing(self.folder):
            self._require(is_free)
            trash = self.lock_file.parent.parent / f".trash-{uuid.uuid4().hex}"
            self.folder.replace(trash)
            shutil.rmtree(trash, ignore_errors=True)
        for empty in (self.folder.parent, self.folder.parent.parent):
            with suppress(OSError):  # other models lie there
                empty.rmdir()

    def _commit_folders(self) -> list[Path]:
        try:
            return [path for path in sorted(self.folder.iterdir()) if path.is_dir() and path.name != PARTIAL]
        except OSError:
            return []


@dataclass(frozen=True, slots=True)
class Store:
    root: Path

    def shelf(self, repo: str, label: str, revision: str) -> Shelf:
        org, _, bare = repo.partition("/")
        place = label + (f"@{quote(revision, safe='')}" if revision else "")
        name = f"{repo}:{label}{'@' + revision if revision else ''}"
        return self._shelf(org, bare, place, name)

    def shelves(self) -> list[Shelf]:
        """All that there are, by name."""
        folders = [path for path in sorted(self.root.glob("[!.]*/*/*")) if path.is_dir()]
        places = [path.relative_to(self.root).parts for path in folders]
        return [self._shelf(org, repo, place, f"{org}/{repo}:{unquote(place)}") for org, repo, place in places]

    def lease_of(self, path: Path) -> Lease | None:
        """For a model that is given by its path; None where that is none of these."""
        below = path.relative_to(self.root).parts if path.is_relative_to(self.root) else ()
        return _lease(self.root.joinpath(*below[:4])) if len(below) > 4 else None

    def find(self, name: HubName) -> list[tuple[Shelf, Manifest]]:
        """The models here that are whole and that `name` may mean."""
        return _meant(name, [(shelf, held) for shelf in self.shelves() if (held := shelf.manifest) is not None])

    def find_any(self, name: HubName) -> list[tuple[Shelf, Manifest]]:
        """Also what is not whole."""
        return _meant(name, self.held())

    def held(self) -> list[tuple[Shelf, Manifest]]:
        """All that is here, whole or not."""
        both = [(shelf, shelf.manifest or shelf.unfinished) for shelf in self.shelves()]
        return [(shelf, held) for shelf, held in both if held is not None]

    def empty_trash(self) -> None:
        """What a removal that was killed left."""
        for path in self.root.glob(".trash-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _shelf(self, org: str, repo: str, place: str, name: str) -> Shelf:
        # `--` is in no repository's name.
        return Shelf(self.root / org / repo / place, self.root / ".locks" / f"{org}--{repo}--{place}", name)


def _meant(name: HubName, models: list[tuple[Shelf, Manifest]]) -> list[tuple[Shelf, Manifest]]:
    meant = [(shelf, held) for shelf, held in models if _is_meant(name, held)]
    if not name.label:
        return meant
    fit = fitting(name.label, [held for _, held in meant])
    return [(shelf, held) for shelf, held in meant if held in fit]


def _is_meant(name: HubName, held: Manifest) -> bool:
    """Whatever label it has."""
    is_commit = len(name.revision) >= 7 and held.commit.startswith(name.revision)
    return name.repo.casefold() == held.repo.casefold() and (name.revision == held.revision or is_commit)


def _lease(folder: Path) -> Lease | None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:  # a file system without such locks: then nothing is protected
        return Lease(fd)
    if _is_same(fd, folder):
        return Lease(fd)
    os.close(fd)
    return None


@contextmanager
def _exclusively(folders: list[Path]) -> Iterator[bool]:
    """Whether nobody has a lease on any of them; then nobody gets one meanwhile."""
    with ExitStack() as stack:
        yield all(_is_free(folder, stack) for folder in folders)


def _is_free(folder: Path, stack: ExitStack) -> bool:
    """Whether it could be locked, until `stack` is closed."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # gone
        return True
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True


def _is_same(fd: int, path: Path) -> bool:
    """Whether what is open at `fd` still lies at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
