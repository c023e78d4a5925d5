"""What an update was made of, and how long it took: gathered batch by batch, told with the step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from finetune.training.events import Events
from finetune.training.stopping import Stop


@dataclass(frozen=True, slots=True)
class Made:
    """Of what batches are made; tokens without padding."""

    rows: tuple[int, ...] = ()
    num_tokens: int = 0
    num_trained: int = 0

    def __add__(self, other: Made) -> Made:
        return Made(self.rows + other.rows, self.num_tokens + other.num_tokens, self.num_trained + other.num_trained)


def take(batch: dict[str, Any]) -> Made:
    """What a model does not take, out of the batch."""
    return Made(tuple(batch.pop("rows")), batch.pop("num_tokens"), batch.pop("num_trained"))


class Tally:
    """Of one process; numbers are those of all of them. The clock stands still while the run is evaluated or saved."""

    def __init__(self, events: Events, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self._events, self._stop, self._clock = events, stop, clock
        self._made = Made()
        self._penalties: list[torch.Tensor] = []
        self._began = clock()

    def note_penalty(self, value: torch.Tensor) -> None:
        """Of an update: a number that is on the device."""
        self._penalties.append(value)

    def add(self, batches: Sequence[dict[str, Any]]) -> int:
        """Trained tokens of these batches, on all processes."""
        made = Made()
        for batch in batches:
            made = made + take(batch)
        if dist.is_initialized() and dist.get_world_size() > 1:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, made)
            made = sum(gathered, Made())
        self._made = self._made + made
        return made.num_trained

    def drain(self) -> dict[str, Any]:
        """What has been gathered since the last time, as a step tells it."""
        seconds = max(self._clock() - self._began, 1e-9)
        told = {
            "num_tokens": self._made.num_tokens, "num_trained_tokens": self._made.num_trained,
            "tok_s": round(self._made.num_tokens / seconds, 1), "seconds": round(seconds, 4), "rows": sorted(self._made.rows),
        }  # fmt: skip
        if self._penalties:
            told["penalty"] = float(f"{float(torch.stack(self._penalties).mean()):.6g}")
        self._made, self._penalties = Made(), []
        self.rest()
        return told

    def rest(self) -> None:
        """The clock begins anew."""
        self._began = self._clock()

    def is_stop_asked(self) -> bool:
        """Where several processes must agree, they do between steps only."""
        return self._stop.is_asked and not dist.is_initialized()

    def agree_to_stop(self) -> bool:
        """Whether any process was asked to; all of them ask together."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return self._stop.is_asked
        wish = torch.tensor(float(self._stop.is_asked), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(wish, dist.ReduceOp.MAX)
        return bool(wish.item())

    def told_eval(self, done: int, total: int) -> None:
        if done == 1:
            self._events.stage("evaluate", "evaluating held-out rows")
        self._events.tell("progress", stage="evaluate", done=done, total=total)

    def told_saved(self, step: int, path: Path) -> None:
        self._events.tell("saved", step=step, path=str(path))
