"""Checkpoints that are whole or are none: RUN/checkpoints/checkpoint-S, written under another name and renamed.

Each has a list of its files with their sizes, written last, by which one that a crash of the machine tore is told from a whole one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RecipeUnusable

PREFIX, LIST = "checkpoint-", "whole.json"
_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    path: Path
    step: int
    data: str
    """Digest of what is trained and in which order: with other data, to go on from it would be wrong."""


def read(path: Path) -> Checkpoint | None:
    """None where it is not whole."""
    try:
        content = json.loads((path / LIST).read_bytes())
        is_whole = all((path / name).stat().st_size == size for name, size in content["files"].items())
        return Checkpoint(path, int(content["step"]), str(content["data"])) if is_whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def whole_ones(folder: Path) -> list[Checkpoint]:
    """By their steps, ascending."""
    found = [read(path) for path in folder.glob(f"{PREFIX}*")]
    return sorted((each for each in found if each is not None), key=lambda each: each.step)


def choose(path: Path, folder: Path) -> tuple[Checkpoint | None, str]:
    """The checkpoint at `path`, or the last whole one before it in `folder` where that is torn; and what to say of it."""
    found = read(path)
    if found is not None:
        return found, ""
    if not path.name.startswith(PREFIX) or not path.name.removeprefix(PREFIX).isdigit():
        raise RecipeUnusable(f"{path}: it is no checkpoint; they are RUN/checkpoints/{PREFIX}STEP")
    step = int(path.name.removeprefix(PREFIX))
    before = [each for each in whole_ones(folder) if each.step < step]
    words = f"{path.name} is not whole" if path.is_dir() else f"{path.name} is not there"
    if not before:
        return None, f"{words}, and there is no other before it: the run begins anew"
    return before[-1], f"{words}: the run goes on from {before[-1].path.name}"


@contextmanager
def writing(folder: Path, step: int) -> Iterator[Path]:
    """An empty folder that becomes checkpoint-`step` when the block ends well and `seal` was called in it."""
    sweep(folder)
    partial = folder / f"{_PARTIAL}{step}"
    partial.mkdir(parents=True)
    yield partial
    target = folder / f"{PREFIX}{step}"
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    _sync(folder)


def seal(path: Path, step: int, data: str) -> None:
    """Write the list of the files that are there, once they are on the disk."""
    files = {}
    for file in sorted(path.iterdir()):
        _sync(file)
        files[file.name] = file.stat().st_size
    with (path / LIST).open("w", encoding="utf-8") as out:
        json.dump({"step": step, "data": data, "files": files}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    _sync(path)


def sweep(folder: Path) -> None:
    """Remove what an attempt that was killed left half written or half removed."""
    torn = [path for path in folder.glob(f"{PREFIX}*") if read(path) is None]
    for path in [*torn, *folder.glob(f"{_PARTIAL}*")]:
        shutil.rmtree(path, ignore_errors=True)


def discard_after(folder: Path, step: int) -> None:
    """Remove checkpoints behind the step that an attempt begins at: it writes them anew."""
    for each in whole_ones(folder):
        if each.step > step:
            _remove(each.path)


def prune(folder: Path, max_checkpoints: int) -> None:
    """Keep the last ones."""
    for each in whole_ones(folder)[: -max(1, max_checkpoints)]:
        _remove(each.path)


def _remove(path: Path) -> None:
    """A checkpoint that is being removed is no whole one from the first moment on."""
    (path / LIST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
