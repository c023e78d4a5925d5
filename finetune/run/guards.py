"""What goes wrong in training and shows in its numbers. Pure: the training process asks after every step.

watch = Watch(recipe.steps, "bfloat16", num_steps)
if finding := watch.look(event):
    emit(finding.as_event())

Causes and remedies are those of the article's section on stability, mended where they are known better.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from finetune.recipe.recipe import Steps
from finetune.run.falling import Falling
from finetune.run.finding import Finding, Step, rows_words
from finetune.run.spikes import Spikes

ZERO_STEPS = 3
MAX_OVERFLOWS = 20
"""Steps in a row whose gradients overflow: float16's loss scaler starts at 2**16 and halves, so that fewer are ordinary."""
SMALL_LOSS = 0.05
MEMORY_SHARES = (0.8, 0.95)
GIB = 1 << 30


class Watch:
    """The guards of one run, which remember its steps. After a resume it is shown the earlier steps first."""

    def __init__(self, steps: Steps | None = None, dtype: str = "", num_steps: int = 0) -> None:
        """`dtype` of computation, as a recipe names it; `num_steps` of the whole run, 0 where that is open."""
        self._steps = steps or Steps()
        self._dtype = dtype
        warmup = self._steps.warmup_steps or math.ceil(self._steps.warmup_ratio * num_steps)
        self._falling = Falling(warmup, num_steps)
        self._spikes = Spikes()
        self._zeros: deque[Step] = deque(maxlen=ZERO_STEPS)
        self._num_overflows = 0
        self._shares = list(MEMORY_SHARES)

    def look(self, event: Mapping[str, Any]) -> Finding | None:
        """The gravest of what this step shows; None for other events and for an ordinary step."""
        if event.get("event", "step") != "step":
            return None
        step = Step.of(event)
        found = (self._not_finite(step), self._zero(step), self._trend(step), self._spike(step), self._memory(step))
        findings = [each for each in found if each is not None]
        return next((each for each in findings if each.is_fatal), findings[0] if findings else None)

    # not a number ---------------------------------------------------------------------------------------------------

    def _not_finite(self, step: Step) -> Finding | None:
        is_loss_finite = math.isfinite(step.loss)
        if is_loss_finite and (step.grad_norm is None or math.isfinite(step.grad_norm)):
            self._num_overflows = 0
            return None
        self._num_overflows += 1
        if is_loss_finite and self._dtype == "float16" and self._num_overflows < MAX_OVERFLOWS:
            return None
        what = f"the loss is {step.loss}" if not is_loss_finite else f"the gradients' norm is {step.grad_norm}"
        cause = self._empty_words(step) if step.num_trained_tokens == 0 else self._precision_words(step)
        return Finding("nan", f"step {step.number}: {what}. {cause}", step.number, step.rows, is_fatal=True)

    def _precision_words(self, step: Step) -> str:
        clip = (
            f"lower learning_rate (now {self._steps.learning_rate:g})"
            if 0 < self._steps.max_grad_norm <= 1
            else "clip gradients with max_grad_norm: 1.0"
        )
        remedy = {
            "float16": f"float16 ends at 65,504: use bf16: true where the GPU has it, float32: true elsewhere, or {clip}",
            "bfloat16": f"{clip}, or use float32: true in place of bf16: true",
        }.get(self._dtype, f"{clip[0].upper()}{clip[1:]}")
        likely = (
            "Likely the number format's limits" if self._dtype in ("float16", "bfloat16") else "Likely steps too wide"
        )
        return f"{likely}, or what is in {rows_words(step.rows)}. {remedy[0].upper()}{remedy[1:]}"

    # zero -----------------------------------------------------------------------------------------------------------

    def _zero(self, step: Step) -> Finding | None:
        if step.loss != 0:
            self._zeros.clear()
            return None
        self._zeros.append(step)
        if len(self._zeros) < ZERO_STEPS:
            return None
        zeros = tuple(self._zeros)
        self._zeros.clear()
        rows = tuple(row for each in zeros for row in each.rows)
        cause, is_fatal = self._zero_cause(zeros)
        message = f"step {step.number}: the loss has been exactly 0 since step {zeros[0].number}. {cause}"
        return Finding("zero_loss", message, step.number, rows, is_fatal)

    def _zero_cause(self, zeros: tuple[Step, ...]) -> tuple[str, bool]:
        if not any(each.num_trained_tokens for each in zeros):
            return self._empty_words(*zeros), True
        if self._spikes.best < SMALL_LOSS:
            return "It has learnt the rows by heart: fewer num_epochs, or more data", False
        words = (
            "Tokens are counted, so that this is likely a NaN that was replaced, or labels that were lost: try "
            "attn_implementation: eager, and look at the rows with: forgegate data show FILE --model BASE"
        )
        return words, True

    def _empty_words(self, *steps: Step) -> str:
        rows = rows_words([row for each in steps for row in each.rows])
        return (
            f"The loss mask of {rows} is empty, so that no token counts: an answer is missing, or lies behind sequence_len. "
            "Look at it with: forgegate data show FILE --model BASE --row N; raise sequence_len, or drop such rows with: "
            "forgegate data doctor FILE --model BASE --fix OUT"
        )

    # trend ----------------------------------------------------------------------------------------------------------

    def _trend(self, step: Step) -> Finding | None:
        if not self._falling.is_missing(step.loss, step.number):
            return None
        first, last = self._falling.first_and_last()
        message = (
            f"step {step.number}: the loss does not fall: {first:.3g} at first, {last:.3g} now. Likely learning_rate "
            f"(now {self._steps.learning_rate:g}) is too low, or there is too little data: raise learning_rate "
            "(2e-4 is usual with LoRA), or num_epochs"
        )
        return Finding("never_falls", message, step.number)

    # spikes ---------------------------------------------------------------------------------------------------------

    def _spike(self, step: Step) -> Finding | None:
        is_spike = self._spikes.is_spike(step.loss, step.num_trained_tokens)
        if self._spikes.has_diverged(step.loss, step.number):
            message = (
                f"step {step.number}: the loss was {self._spikes.best:.3g}, has risen to {step.loss:.3g} and has not come "
                f"back since step {self._spikes.rose_at}. Likely learning_rate (now {self._steps.learning_rate:g}) is too high: a third "
                "of it, or more warmup_steps, and train again"
            )
            return Finding("diverged", message, step.number, step.rows, is_fatal=True)
        if not is_spike:
            return None
        message = (
            f"step {step.number}: the loss jumps to {step.loss:.3g}, {self._spikes.usual:.3g} is usual. Likely an outlier "
            f"among {rows_words(step.rows)}: look at them, drop what is wrong and train again; if it happens often, "
            f"learning_rate (now {self._steps.learning_rate:g}) is too high"
        )
        return Finding("spike", message, step.number, step.rows)

    # memory ---------------------------------------------------------------------------------------------------------

    def _memory(self, step: Step) -> Finding | None:
        if not step.total_bytes:
            return None
        share = step.peak_bytes / step.total_bytes
        passed = [each for each in self._shares if share > each]
        if not passed:
            return None
        self._shares = [each for each in self._shares if share <= each]
        message = (
            f"step {step.number}: memory peaked at {step.peak_bytes / GIB:.1f} of {step.total_bytes / GIB:.1f} GiB "
            f"({share:.0%}): above {MEMORY_SHARES[0]:.0%} a longer batch may run out of it. {self._smaller_words()}; "
            "or let --on-oom retry do so when it happens"
        )
        return Finding("memory", message, step.number, step.rows)

    def _smaller_words(self) -> str:
        micro, accumulation = self._steps.micro_batch_size, self._steps.gradient_accumulation_steps
        if micro % 2:
            return "See what can be saved: forgegate train RECIPE --plan"
        return (
            f"With micro_batch_size: {micro // 2} and gradient_accumulation_steps: {accumulation * 2} it learns the same "
            "from less memory"
        )
