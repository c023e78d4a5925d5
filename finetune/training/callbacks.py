"""What happens around the steps: when is told, evaluated, saved and ended, and by whom it is watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from finetune.run.finding import Finding
from finetune.run.guards import Watch
from finetune.training import metrics
from finetune.training.batches import EpochOrder
from finetune.training.events import Events
from finetune.training.memory import Meter
from finetune.training.schedule import Schedule, should_stop
from finetune.training.tally import Tally

Keep = Callable[[int, float], None]
"""Is told the step and the loss of an evaluation."""


@dataclass(slots=True)
class Outcome:
    """What the attempt has come to. `loss` is of the last step that was told, `best` of evaluations."""

    loss: float = math.nan
    eval_losses: list[float] = field(default_factory=list)
    eval_steps: list[int] = field(default_factory=list)
    fatal: Finding | None = None
    is_stopped: bool = False
    is_early: bool = False


class Conductor(TrainerCallback):  # type: ignore[misc]
    """`keep` saves the adapter if it is the best one so far; None where the last one is wanted, not the best."""

    def __init__(
        self,
        schedule: Schedule,
        patience: int,
        seed: int,
        order: EpochOrder,
        tally: Tally,
        teller: Teller,
        keep: Keep | None,
    ) -> None:
        self._schedule, self._patience, self._seed, self._order = schedule, patience, seed, order
        self._tally, self._teller, self._keep = tally, teller, keep
        self.outcome = teller.outcome

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # An epoch that is gone on with has a fraction.
        self._order.epoch = int(state.epoch)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Dropout is a function of the seed and the step: masks are the same after any resume."""
        torch.manual_seed(hash((self._seed, state.global_step, args.process_index)))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        control.should_log = self._schedule.is_log_due(step)
        control.should_evaluate = self._schedule.is_eval_due(step)
        control.should_save = self._schedule.is_save_due(step)
        if self._tally.agree_to_stop():
            self.outcome.is_stopped = True
            control.should_log = control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self._teller.tell_step(state.global_step, state.epoch, logs, self._tally.drain())
            if self.outcome.fatal is not None:
                # What is saved already is better than what these weights have become.
                control.should_training_stop = True
                control.should_evaluate = control.should_save = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self._teller.tell_eval(state.global_step, state.epoch, metrics)
        if self._keep is not None:
            self._keep(state.global_step, self.outcome.eval_losses[-1])
        if self.ends_early(state.global_step):
            control.should_training_stop = control.should_save = True
        self._tally.rest()

    def ends_early(self, step: int) -> bool:
        """Whether the evaluations until `step` end the run before its last one."""
        is_worse = should_stop(self.outcome.eval_losses, self._patience)
        self.outcome.is_early = is_worse and step < self._schedule.num_steps
        return self.outcome.is_early

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tally.rest()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tally.rest()


class Teller:
    """Steps and evaluations to the parent, to RUN/metrics.jsonl, to the guards. `path` is None in all processes but the first."""

    def __init__(self, events: Events, path: Path | None, meter: Meter, watch: Watch) -> None:
        self._events, self._path, self._meter, self._watch = events, path, meter, watch
        self.outcome = Outcome()

    def recall(self, entries: list[dict[str, Any]]) -> None:
        """What earlier attempts told of the steps that this one goes on from."""
        for entry in entries:
            if entry.get("event") == "eval":
                self._note_eval(entry["step"], entry["loss"])
            elif entry.get("event") == "step":
                self.outcome.loss = entry["loss"]
                self._watch.look(entry)

    def tell_step(self, step: int, epoch: float, logs: dict[str, Any], made_of: dict[str, Any]) -> None:
        self.outcome.loss = logs["loss"]
        entry = {
            "event": "step", "step": step, "epoch": round(epoch, 4), "loss": logs["loss"], "grad_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"), **made_of, "memory_bytes": self._meter.used_bytes(),
            "peak_bytes": self._meter.peak_bytes(), "total_bytes": self._meter.total_bytes(),
        }  # fmt: skip
        self._write(entry)
        if (finding := self._watch.look(entry)) is not None:
            self._events.write(finding.as_event())
            if finding.is_fatal:
                self.outcome.fatal = finding

    def tell_eval(self, step: int, epoch: float, found: dict[str, Any]) -> None:
        self._note_eval(step, found["eval_loss"])
        loss, tokens = found["eval_loss"], found["eval_tokens"]
        self._write({"event": "eval", "step": step, "epoch": round(epoch, 4), "loss": loss, "num_tokens": tokens})
        self._events.stage("train", "training")

    def _note_eval(self, step: int, loss: float) -> None:
        self.outcome.eval_losses.append(loss)
        self.outcome.eval_steps.append(step)

    def _write(self, entry: dict[str, Any]) -> None:
        self._events.write(entry)
        if self._path is not None:
            metrics.append(self._path, entry)
