"""When a run ends, is evaluated and saved, in steps. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps are counted from 1; each is one update of the weights."""

    num_steps: int
    steps_per_epoch: int
    eval_every: int
    """0: never."""
    save_every: int
    log_every: int
    warmup_steps: int
    ends_early: bool
    """Whether `max_steps` ends it before its epochs do."""

    def is_eval_due(self, step: int) -> bool:
        return self._is_due(step, self.eval_every)

    def is_save_due(self, step: int) -> bool:
        return self._is_due(step, self.save_every)

    def is_log_due(self, step: int) -> bool:
        """A step that is saved is told as well, so that what is told does not depend on where a run was resumed."""
        return self._is_due(step, self.log_every) or self.is_save_due(step)

    def _is_due(self, step: int, every: int) -> bool:
        return every > 0 and step > 0 and (step % every == 0 or step == self.num_steps)


def schedule_of(recipe: Recipe, num_packs: int, num_processes: int, has_eval: bool) -> Schedule:
    """An epoch's last update may have fewer micro batches, and still counts."""
    micro = recipe.steps.micro_batch_size * num_processes
    per_epoch = max(1, math.ceil(math.ceil(num_packs / micro) / recipe.steps.gradient_accumulation_steps))
    by_epochs = max(1, math.ceil(recipe.steps.num_epochs * per_epoch))
    num_steps = min(by_epochs, recipe.steps.max_steps) if recipe.steps.max_steps else by_epochs
    return Schedule(
        num_steps=num_steps,
        steps_per_epoch=per_epoch,
        eval_every=_every(recipe.watch.eval_steps, recipe.watch.evals_per_epoch, per_epoch) if has_eval else 0,
        save_every=_every(recipe.watch.save_steps, recipe.watch.saves_per_epoch, per_epoch),
        log_every=recipe.watch.logging_steps,
        warmup_steps=recipe.steps.warmup_steps or math.ceil(recipe.steps.warmup_ratio * num_steps),
        ends_early=num_steps < by_epochs,
    )


def _every(steps: int, per_epoch: int, steps_per_epoch: int) -> int:
    return steps or max(1, round(steps_per_epoch / per_epoch) if per_epoch else steps_per_epoch)


def should_stop(losses: list[float], patience: int) -> bool:
    """`patience` evaluations without a lower loss end the run; 0: none does. A loss that is no number is never the lowest."""
    finite = [(loss, place) for place, loss in enumerate(losses) if math.isfinite(loss)]
    best = min(finite)[1] if finite else -1
    return 0 < patience <= len(losses) - 1 - best
