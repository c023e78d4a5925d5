"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from backends.plan import size_words
from finetune.plan.adapter import RANKS
from finetune.plan.memory import PARTS
from finetune.plan.plan import Plan
from finetune.plan.steps import Steps
from finetune.plan.time import NUM_TRIES
from finetune.plan.units import duration_words
from finetune.recipe.recipe import Recipe

WAYS = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}


def text(plan: Plan) -> str:
    """Several lines, without one at the end that is empty."""
    parts = (
        _model(plan),
        _memory(plan),
        _verdict(plan),
        _data(plan),
        _time(plan),
        (f"note: {note}" for note in plan.notes),
    )
    return "\n".join("\n".join(part) for lines in parts if (part := list(lines)))


def _model(plan: Plan) -> Iterator[str]:
    recipe = plan.recipe
    yield f"{recipe.base_name or recipe.base}: {plan.shape.num_parameters:,} parameters, {plan.shape.model_type}"
    share = f"{plan.num_trainable:,} of {plan.num_in_all:,} parameters ({_percent(plan.share_trainable)})"
    yield f"trained: {share}{_targets(recipe)}"
    if plan.advice:
        yield f"rank: {plan.advice.words}"
        if not plan.advice.is_followed:
            yield "  " + "; ".join(f"r={rank} {use}" for rank, use in RANKS.items())


def _targets(recipe: Recipe) -> str:
    if recipe.lora is None:
        return ""
    return f", r={recipe.lora.rank} on {', '.join(recipe.lora.targets)}"


def _memory(plan: Plan) -> Iterator[str]:
    """By part: the recipe first, then the ways it could be done."""
    columns = {"this recipe": plan.memory, **{WAYS[name]: way for name, way in plan.ways.items()}}
    yield ""
    yield f"memory{' of each GPU' if plan.num_devices > 1 else ''}".ljust(16) + "".join(
        name.rjust(13) for name in columns
    )
    for part in PARTS:
        sizes = [memory.parts[part] for memory in columns.values()]
        if any(sizes):
            yield f"  {part}".ljust(16) + "".join((size_words(size) if size else "-").rjust(13) for size in sizes)
    yield "  total".ljust(16) + "".join(size_words(memory.total).rjust(13) for memory in columns.values())


def _verdict(plan: Plan) -> Iterator[str]:
    device = plan.device
    had = f"{size_words(device.free_bytes)} of {device.name}"
    if plan.fits:
        tight = ", but the estimate may be wrong by more than what is left" if plan.is_tight else ""
        yield f"fits {had}{tight}"
        return
    yield f"does not fit {had}: it takes {size_words(plan.memory.total)}, weights alone {size_words(plan.memory.parts['weights'])}"
    if plan.remedy:
        yield plan.remedy.words


def _data(plan: Plan) -> Iterator[str]:
    facts = plan.facts
    if facts is None:
        return
    yield ""
    how = "by the model's tokenizer" if facts.is_exact else "estimated"
    held = f", {facts.num_eval_rows:,} held out" if facts.num_eval_rows else ""
    general = f" ({facts.num_general:,} of them general)" if facts.num_general else ""
    yield f"data: {facts.num_rows:,} rows{general}, {facts.num_tokens:,} tokens {how}, {facts.mean_length:,.0f} a row{held}"
    if plan.steps is not None:
        yield _steps(plan.recipe, plan.steps)


def _steps(recipe: Recipe, steps: Steps) -> str:
    batch = f"{recipe.steps.micro_batch_size} x {recipe.steps.gradient_accumulation_steps}"
    devices = f" x {steps.num_devices} GPUs" if steps.num_devices > 1 else ""
    padding = (
        f", {steps.num_computed / steps.num_tokens - 1:.0%} padding" if steps.num_computed > steps.num_tokens else ""
    )
    made = f"; {steps.num_units:,} packs of up to {recipe.data.max_length} tokens" if steps.units == "packs" else ""
    return f"steps: {steps.num_steps:,} ({steps.per_epoch:,} an epoch) of {batch} {steps.units}{devices}{made}{padding}"


def _time(plan: Plan) -> Iterator[str]:
    if plan.speed is None:
        if plan.steps is not None:
            yield f"time: not known for {plan.device.name}: name a card, as in --gpu RTX4090"
        return
    yield f"time: about {duration_words(plan.speed.seconds)}, {plan.speed.tokens_per_s:,.0f} tokens/s ({plan.speed.basis})"
    if plan.faster:
        yield f"faster: {plan.faster.words}: about {plan.faster.times:.1f} times as fast, {size_words(plan.faster.total_bytes)}"
    cost = plan.cost
    if cost is not None and plan.price is not None:
        low, high = (count * cost for count in NUM_TRIES)
        yield f"cost: {cost:,.2f} a try at {plan.price:g} an hour; {low:,.2f} to {high:,.2f} for {NUM_TRIES[0]} to {NUM_TRIES[1]} tries"


def _percent(share: float) -> str:
    """`0.52 %`"""
    return f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.0f} %"
