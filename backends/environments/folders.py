"""Where environments lie, and how one takes the place of another.

    <envs>/NAME                     a link to the one that is in use
    <envs>/.built/NAME/<random>/    built in place, because environments cannot be moved; whole where it holds RECORD_FILE
    <envs>/.locks/NAME              held by whoever installs or removes it; never removed

What has no link to it is a leftover: of an install that was killed, or replaced. The next install removes it, unless a process runs it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.base import Tell
from backends.environments.errors import EnvironmentRefused

RECORD_FILE = "forgegate-environment.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What an environment was made of."""

    name: str
    forgegate: str
    """Version."""
    digest: str
    """Of the forgegate package in it."""
    pins: tuple[str, ...]
    python: str
    python_version: str
    installed_at: str
    install_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Folders:
    envs: Path
    name: str

    @property
    def link(self) -> Path:
        return self.envs / self.name

    @property
    def _built(self) -> Path:
        return self.envs / ".built" / self.name

    def current(self) -> Path | None:
        """The folder of the one in use."""
        return self.link.resolve() if self.link.is_symlink() and self.link.exists() else None

    def is_own(self) -> bool:
        """Whether a user put an environment there: it is used, and never touched."""
        return self.link.is_dir() and not self.link.is_symlink()

    def record(self) -> Record | None:
        """None where there is none that can be read."""
        try:
            content = json.loads((self.link / RECORD_FILE).read_bytes())
            return Record(**{**content, "pins": tuple(content["pins"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def make(self) -> Path:
        """A folder to build in."""
        folder = self._built / secrets.token_hex(4)
        folder.mkdir(parents=True)
        return folder

    def switch(self, folder: Path, record: Record) -> None:
        """`folder` is whole: from now on it is the one in use. In one step, whatever is killed."""
        with (folder / RECORD_FILE).open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), indent=1))
            file.flush()
            os.fsync(file.fileno())
        temporary = self._built / f"link-{secrets.token_hex(4)}"
        temporary.symlink_to(folder.relative_to(self.envs))
        os.replace(temporary, self.link)

    def sweep(self) -> list[Path]:
        """Remove leftovers; those that a process still runs stay, and are returned. The lock is held."""
        current, kept = self.current(), []
        for path in self._entries():
            if path == current:
                continue
            if path.is_dir() and not path.is_symlink():
                if users_of(path):
                    kept.append(path)
                else:
                    shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return kept

    def remove(self) -> None:
        """Raises EnvironmentRefused while it runs, OSError."""
        users = [pid for path in (self.current(), self.link) if path is not None for pid in users_of(path)]
        if users:
            pids = ", ".join(map(str, sorted(set(users))))
            raise EnvironmentRefused(f"{self.name} is in use by process {pids}: stop that first")
        self.link.unlink(missing_ok=True)
        self.sweep()

    @contextmanager
    def locked(self, tell: Tell) -> Iterator[None]:
        """One process at a time; the others wait, and say so. Raises OSError."""
        path = self.envs / ".locks" / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another forgegate is installing or removing {self.name}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _entries(self) -> list[Path]:
        try:
            return sorted(self._built.resolve().iterdir())
        except OSError:
            return []


def users_of(folder: Path) -> list[int]:
    """Processes that run an interpreter or a script of this environment."""
    start = f"{folder}/bin/"
    return [pid for pid, words in _commands() if any(word.startswith(start) for word in words[:2])]


def _commands() -> Iterator[tuple[int, list[str]]]:
    if Path("/proc/self/cmdline").exists():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                yield int(path.parent.name), path.read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue  # ended meanwhile
        return
    listed = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), [command.strip()]


def size_of(folder: Path) -> int:
    """Bytes on the disk."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_blocks * 512 for parent, _, names in os.walk(folder) for name in names
    )
