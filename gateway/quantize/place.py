"""Where forms of a model are written: one process at a time, with room for what is coming."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from backends.plan import size_words
from gateway.exits import CommandError
from gateway.home import Home


class Busy(CommandError):
    """Another process writes there."""


class NoDisk(CommandError):
    """What is to be made does not fit on the disk."""


def require_disk(folder: Path, sizes: Mapping[str, int]) -> None:
    """`sizes`: bytes of each form. Raises NoDisk."""
    needed, free = sum(sizes.values()), shutil.disk_usage(folder).free
    if needed > free:
        listed = ", ".join(f"{name} {size_words(size)}" for name, size in sizes.items())
        raise NoDisk(
            f"{listed}: {size_words(needed)} together, and {folder} has {size_words(free)} free: free some space, ask for fewer levels, "
            "or name another disk with --out"
        )


@contextmanager
def owned(folder: Path, name: str, home: Home) -> Iterator[None]:
    """One process at a time writes into `folder`; what one that was killed left of `name` is removed. Raises Busy, CommandError."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        lock = (home.run / f"quantize-{mark}.lock").open("w")
    except OSError as exc:
        raise CommandError(f"{exc.filename or folder}: {exc.strerror or exc}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another forgegate quantize writes into {folder}: wait for it, or name another --out") from None
        for left in folder.glob(f".{glob.escape(name)}-*.gguf.*"):
            left.unlink(missing_ok=True)
        try:
            yield
        except OSError as exc:
            raise CommandError(f"{exc.filename or folder}: {exc.strerror or exc}") from exc
        finally:
            if is_new:
                with suppress(OSError):  # something lies there
                    os.rmdir(folder)
