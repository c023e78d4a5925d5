"""A run from its first attempt to its last: decide, execute, account."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.plan.ladder import Step, next_step
from finetune.recipe.plain import to_json
from finetune.recipe.recipe import Recipe
from finetune.run.attempt import Attempt
from finetune.run.begin import Begun
from finetune.run.ending import DONE, Outcome, outcome_of
from finetune.run.folder import RunFolder
from finetune.run.interrupts import Interrupts
from finetune.run.retry import Retry, oom_words, retry_of, step_after
from finetune.run.view import View
from finetune.training.checkpoints import Checkpoint

CHILD = (sys.executable, "-P", "-m", "finetune.training.child")
Predict = Callable[[Recipe], Mapping[str, int]]
"""Bytes by part, of a recipe."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user decided beside the recipe."""

    is_oom_retried: bool = False
    allow_shorter: bool = False
    memory_limit_bytes: int | None = None
    has_gpu: bool = False
    num_processes: int = 1
    command: Sequence[str] = CHILD


class Session:
    """Owns the run's folder and its record while it lasts."""

    def __init__(self, folder: RunFolder, begun: Begun, policy: Policy, view: View, predict: Predict) -> None:
        self.folder = folder
        self._policy = policy
        self._view = view
        self._predict = predict
        self.record = begun.record
        self.recipe = begun.recipe
        self._checkpoint = begun.checkpoint
        self._step_down = ""
        self._is_read = True
        self.stop_signal: signal.Signals | None = None

    def run(self) -> Outcome:
        """Of the last attempt; `stop_signal` is what stopped it, if one did. Raises TrainError where no attempt can be made."""
        with Interrupts() as interrupts:
            while True:
                outcome = self._attempt(interrupts)
                self.stop_signal = interrupts.received or (None if self._is_read else signal.SIGPIPE)
                retry = self._retry_of(outcome)
                if retry is None or self.stop_signal is not None:
                    return outcome
                self._step(retry)

    def oom_words(self, outcome: Outcome) -> str:
        step = step_after(outcome, self.recipe, self._next_step)
        return oom_words(outcome, self._predict(self.recipe), step, self._is_shorter_left())

    def _next_step(self, recipe: Recipe) -> Step | None:
        return next_step(recipe, self._policy.allow_shorter, self._policy.has_gpu)

    def _is_shorter_left(self) -> bool:
        return next_step(self.recipe, True, self._policy.has_gpu) is not None

    # decide ---------------------------------------------------------------------------------------------------------

    def _retry_of(self, outcome: Outcome) -> Retry | None:
        if not self._policy.is_oom_retried:
            return None
        return retry_of(outcome, self.recipe, self._next_step)

    def _step(self, retry: Retry) -> None:
        """One lower: the next attempt's recipe, and from where it goes on."""
        self._checkpoint = self.folder.newest_checkpoint() if retry.can_resume else None
        if not retry.can_resume:
            self.folder.set_checkpoints_aside(self.record.attempt.number + 1)
        self.recipe, self._step_down = retry.recipe, retry.words
        where = f"from step {self._checkpoint.step}" if self._checkpoint else "from the beginning"
        self._view.say(f"out of memory in attempt {self.record.attempt.number}: again {where}, with {retry.words}")

    # execute --------------------------------------------------------------------------------------------------------

    def _attempt(self, interrupts: Interrupts) -> Outcome:
        self._account_for_begin()
        told: dict[str, Mapping[str, Any]] = {}
        attempt = Attempt(self._argv(self._checkpoint), self.folder.log, num_processes=self._policy.num_processes)
        with attempt:
            interrupts.follow(attempt)
            for event in attempt.events():
                told[event["event"]] = event
                interrupts.is_stepping |= event["event"] == "start"
                self._account_for(event)
                self._show(event, attempt)
            interrupts.follow(None)
        outcome = outcome_of(attempt.ended, told)
        self.record.end(outcome.status, attempt.ended.code, outcome.message)
        self.record.result = dict(outcome.event) if outcome.status == DONE else {}
        self.record.keep()
        return outcome

    def _show(self, event: Mapping[str, Any], attempt: Attempt) -> None:
        """Whoever reads it may leave: a terminal that is closed, a `tee` that the same Ctrl-C ends. That costs no checkpoint."""
        if not self._is_read:
            return
        try:
            self._view(event)
        except OSError:
            self._is_read = False
            attempt.stop()

    def _argv(self, checkpoint: Checkpoint | None) -> list[str]:
        argv = [*self._policy.command, "--run", str(self.folder.path), "--attempt", str(self.record.attempt.number)]
        if checkpoint is not None:
            argv += ["--resume", str(checkpoint.path)]
        if self._policy.memory_limit_bytes is not None:
            argv += ["--memory-limit", str(self._policy.memory_limit_bytes)]
        return argv

    # account --------------------------------------------------------------------------------------------------------

    def _account_for_begin(self) -> None:
        """The record is written last: what it names is there."""
        steps, checkpoint = self.recipe.steps, self._checkpoint
        self.record.begin(
            resumed_from=checkpoint.step if checkpoint else None, step_down=self._step_down,
            micro_batch_size=steps.micro_batch_size, gradient_accumulation_steps=steps.gradient_accumulation_steps,
            num_processes=self._policy.num_processes, predicted_bytes=sum(self._predict(self.recipe).values()) or None,
        )  # fmt: skip
        self.folder.write_json(self.folder.attempt(self.record.attempt.number), to_json(self.recipe))
        self.record.keep()

    def _account_for(self, event: Mapping[str, Any]) -> None:
        """In memory; on disk where a reader of the record would miss it."""
        attempt = self.record.attempt
        match event["event"]:
            case "step":
                attempt.num_steps = int(event["step"])
                attempt.peak_bytes = max(attempt.peak_bytes or 0, int(event.get("peak_bytes") or 0)) or None
            case "done":
                attempt.peak_bytes = max(attempt.peak_bytes or 0, int(event.get("peak_bytes") or 0)) or None
            case "data":
                self.record.data = {name: value for name, value in event.items() if name != "event"}
            case "guard":
                self.record.findings.append({name: value for name, value in event.items() if name != "event"})
            case "saved":
                self.record.keep()
