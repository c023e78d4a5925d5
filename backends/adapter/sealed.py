"""Folders that nobody changes by mistake: files 0444, the folder 0555. Standard library only.

An engine reads an adapter again from its folder, unasked, long after it was proven: what lies there must not change. Digests tell
where it did all the same.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_MODE, FOLDER_MODE, OPEN_MODE = 0o444, 0o555, 0o755


def seal(folder: Path) -> None:
    """Raises OSError."""
    for path in folder.iterdir():
        if (
            not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != FILE_MODE
        ):  # a change of mode would look like one of content
            path.chmod(FILE_MODE)
    folder.chmod(FOLDER_MODE)


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """One process at a time may add to it and replace in it within the block; then it is sealed. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        folder.chmod(OPEN_MODE)
        try:
            yield
        finally:
            seal(folder)
    finally:
        os.close(fd)


def remove_tree(folder: Path) -> None:
    """With all that is sealed in it; what cannot be removed stays."""
    for path, _, _ in os.walk(folder):
        with suppress(OSError):
            os.chmod(path, OPEN_MODE)
    shutil.rmtree(folder, ignore_errors=True)


def put_folder(made: Path, out: Path) -> None:
    """`made` becomes `out`; an earlier one goes once the new one is there. Raises OSError."""
    old = out.with_name(f".{out.name}-old")
    if old.exists():
        remove_tree(old)
    if out.exists():
        out.rename(old)
    made.rename(out)
    if old.exists():
        remove_tree(old)
