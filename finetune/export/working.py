"""Where an export is made: a folder beside `out`, so that moving from it is one step; one process at a time.

A lock on the folder itself says that its process lives: what is left by one that was killed goes with the next export.
"""

from __future__ import annotations

import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from backends.adapter.sealed import remove_tree
from finetune.errors import TrainError

_MARK = "forgegate-export"


class OutBusy(TrainError):
    """Another process exports to there."""


@contextmanager
def working(out: Path) -> Iterator[Path]:
    """Gone after the block. Raises OutBusy, OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _locked(out.parent) as can_lock:  # between its making and its lock it would look like one that was left
            if can_lock:
                _sweep(out)
            work = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
            stack.callback(remove_tree, work)
            stack.enter_context(_locked(work))
        yield work


def _prefix(out: Path) -> str:
    return f".{out.name}.{_MARK}-"


def _sweep(out: Path) -> None:
    """Remove what is nobody's any more. Raises OutBusy."""
    for left in out.parent.glob(f"{glob.escape(_prefix(out))}*"):
        with suppress(FileNotFoundError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_left:
            if not is_left:
                raise OutBusy(f"another process exports to {out}: wait for it, or name another --out")
            remove_tree(left)


@contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Whether it is: some disks of other machines have no locks for folders. Raises OSError where it cannot be opened."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, how)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
