"""RUN/best: the adapter of the lowest evaluation so far, with the step and the loss that it is of."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.adapter.sealed import put_folder

_ADAPTER, _NOTE = "adapter", "evaluation.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    step: int
    loss: float


class Best:
    """`write` makes a folder of the adapter as it is now."""

    def __init__(self, folder: Path, write: Callable[[Path], None]) -> None:
        self.folder = folder
        self._write = write

    @property
    def adapter(self) -> Path:
        return self.folder / _ADAPTER

    def found(self) -> Evaluation | None:
        """None where none is kept, or where it is not known of which step."""
        try:
            told = json.loads((self.folder / _NOTE).read_bytes())
            return Evaluation(int(told["step"]), float(told["loss"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def offer(self, step: int, loss: float) -> None:
        """Keep the adapter if the loss is lower than that of the one that is kept; one that is no number never is."""
        kept = self.found()
        if not math.isfinite(loss) or (kept is not None and loss >= kept.loss):
            return
        partial = self.folder.with_name(f".{self.folder.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)
        self._write(partial / _ADAPTER)
        (partial / _NOTE).write_text(json.dumps(asdict(Evaluation(step, loss))), encoding="utf-8")
        put_folder(partial, self.folder)

    def drop_after(self, step: int) -> None:
        """Behind the step that an attempt begins at, what is kept is of steps that are trained anew."""
        kept = self.found()
        if kept is None or kept.step > step:
            shutil.rmtree(self.folder, ignore_errors=True)
