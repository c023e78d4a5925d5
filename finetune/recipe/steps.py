"""How the weights of a recipe move: rates, batches, length."""

from __future__ import annotations

from finetune.recipe.given import Given
from finetune.recipe.recipe import Steps


def read_steps(given: Given, loss: str) -> Steps:
    """`loss`: the recipe's hook."""
    usual = Steps()
    warmup_steps, warmup_ratio = _warmup(given)
    micro, accumulation = _batch(given)
    return Steps(
        learning_rate=given.get("learning_rate", usual.learning_rate),
        schedule=given.get("lr_scheduler", usual.schedule),
        warmup_steps=warmup_steps,
        warmup_ratio=warmup_ratio,
        optimizer=given.get("optimizer", usual.optimizer),
        weight_decay=given.get("weight_decay", usual.weight_decay),
        max_grad_norm=given.get("max_grad_norm", usual.max_grad_norm),
        num_epochs=given.get("num_epochs", usual.num_epochs),
        max_steps=given.get("max_steps", usual.max_steps),
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        loss=loss,
    )


def _warmup(given: Given) -> tuple[int, float]:
    steps, ratio, max_steps = given.get("warmup_steps", 0), given.get("warmup_ratio", 0.0), given.get("max_steps", 0)
    if steps and ratio:
        given.problem("warmup_ratio", "warmup_steps is given too: keep one of them")
    if max_steps and steps >= max_steps:
        given.problem(
            "warmup_steps", f"{steps} of max_steps: {max_steps} leave no step at the full learning rate: write fewer"
        )
    return steps, ratio


def _batch(given: Given) -> tuple[int, int]:
    """Rows of a forward pass, and passes of a step. Any two of the three keys say all."""
    usual = Steps()
    micro, accumulation, total = (
        given.get(name) for name in ("micro_batch_size", "gradient_accumulation_steps", "batch_size")
    )
    if total is None:
        return micro or usual.micro_batch_size, accumulation or usual.gradient_accumulation_steps
    if micro and accumulation:
        if micro * accumulation != total:
            given.problem(
                "batch_size",
                f"{total} is not micro_batch_size {micro} x gradient_accumulation_steps {accumulation}: leave it out",
            )
        return micro, accumulation
    known = micro or accumulation or usual.micro_batch_size
    if total % known:
        name = "micro_batch_size" if micro else "gradient_accumulation_steps"
        given.problem("batch_size", f"{total} is no multiple of {name}: {known}")
    other = max(1, total // known)
    return (other, accumulation) if accumulation else (known, other)
