"""The folder of a run.

recipe.yaml       as it was given
recipe.json       the same, read
attempts/N.json   the recipe of attempt N: after an out of memory it is a step lower
environment.json  versions and machine
plan.json         what was foreseen
metrics.jsonl     every step and evaluation
curves.png        drawn from it
checkpoints/      checkpoint-STEP, the newest few
adapter/          the result as it was trained
export/           the result as it is published
evaluation/       what was asked before it went live, and the verdict
record.json       what happened: attempts, foreseen and measured memory, how it ended
log.txt           what the training processes said beside their events
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path
from finetune.errors import RecipeUnusable, TrainError
from finetune.training.checkpoints import Checkpoint, whole_ones

LOCK = ".lock"


class FolderUnusable(TrainError):
    """The run's folder cannot be written: a disk that is full, permissions."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    @property
    def recipe_yaml(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def recipe_json(self) -> Path:
        return self.path / "recipe.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def attempt(self, number: int) -> Path:
        return self.path / "attempts" / f"{number}.json"

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return self.record.is_file()

    def newest_checkpoint(self) -> Checkpoint | None:
        return next(reversed(whole_ones(self.checkpoints)), None)

    def set_checkpoints_aside(self, number: int) -> None:
        """Attempt `number` does not go on from them."""
        if self.checkpoints.is_dir():
            self.checkpoints.rename(self.path / "attempts" / f"before-{number}-checkpoints")

    def refuse_foreign(self) -> None:
        """Raises RecipeUnusable where the folder has files that are no run's."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RecipeUnusable(f"output_dir {self.path} is a file: name a folder, or give --out DIR")
        if not self.is_run and any(each.name != LOCK for each in self.path.iterdir()):
            raise RecipeUnusable(
                f"output_dir {self.path} holds other files and no run: name a folder that is empty or new, or give --out DIR"
            )

    @contextmanager
    def owned(self) -> Iterator[None]:
        """This process writes here and no other does, until the block ends. Raises RecipeUnusable, FolderUnusable."""
        self.refuse_foreign()  # before a lock lies there
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _take(lock, self.path)
            yield
        finally:
            os.close(lock)

    def write_json(self, path: Path, value: Any) -> None:
        """Whole or not at all. Raises FolderUnusable."""
        with writing(path), atomic_path(path) as temporary:
            temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def read_json(self, path: Path) -> Any:
        """Raises RecipeUnusable."""
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as exc:
            raise RecipeUnusable(
                f"{path} cannot be read ({exc}): the run cannot be continued, begin it anew with --out DIR"
            ) from exc


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises FolderUnusable, in words, for what the disk refuses."""
    try:
        yield
    except OSError as exc:
        place = exc.filename or path
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FolderUnusable(
                f"the disk is full: {place} cannot be written; free some space, or give --out DIR"
            ) from exc
        raise FolderUnusable(
            f"{place} cannot be written ({exc.strerror or exc}): give --out DIR, or mend that"
        ) from exc


def _take(lock: int, path: Path) -> None:
    """Raises RecipeUnusable."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise RecipeUnusable(f"another forgegate train is writing to {path}: wait for it, or give --out DIR") from exc
