"""A plan of one run: `plan` makes it of a recipe, what is known of the data, a device and a price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetune.plan import faster, remedy
from finetune.plan.adapter import Advice, advise, num_trainable
from finetune.plan.device import Device
from finetune.plan.facts import DataFacts
from finetune.plan.faster import Faster
from finetune.plan.memory import MemoryPlan, estimate, side_by_side
from finetune.plan.remedy import Remedy
from finetune.plan.shape import ModelShape
from finetune.plan.steps import Steps, steps_of
from finetune.plan.time import NUM_TRIES, Speed, speed
from finetune.recipe.recipe import Recipe
from finetune.recipe.shares import general_words

TIGHT = 0.9
"""Of what the device has: above it, the estimate's error decides."""


@dataclass(frozen=True, slots=True)
class Plan:
    recipe: Recipe
    shape: ModelShape
    device: Device
    num_devices: int
    num_trainable: int
    memory: MemoryPlan
    """Of one device."""
    ways: Mapping[str, MemoryPlan]
    """The same run as `full`, `lora` and `qlora`."""
    facts: DataFacts | None
    advice: Advice | None
    """On the rank; None where there is no adapter."""
    steps: Steps | None
    """None without facts of the data."""
    speed: Speed | None
    price: float | None
    """Of an hour of one device."""
    remedy: Remedy | None
    """None where it fits."""
    faster: Faster | None
    """What memory is left for; None where nothing is worth it, or speeds are not known."""

    @property
    def num_in_all(self) -> int:
        """Parameters of the model and of its adapter, as PEFT counts them."""
        return self.shape.num_parameters + (self.num_trainable if self.recipe.lora else 0)

    @property
    def share_trainable(self) -> float:
        """Of all parameters, the adapter's own among them."""
        return self.num_trainable / self.num_in_all

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.device.free_bytes

    @property
    def is_tight(self) -> bool:
        return self.fits and self.memory.total > TIGHT * self.device.free_bytes

    @property
    def cost(self) -> float | None:
        """Of one try."""
        if self.speed is None or self.price is None:
            return None
        return self.price * self.num_devices * self.speed.seconds / 3600

    @property
    def notes(self) -> tuple[str, ...]:
        limit = self.shape.max_positions
        found = list(self.shape.notes)
        if limit and self.recipe.data.max_length > limit:
            found.append(f"sequence_len {self.recipe.data.max_length}: the model reads {limit} tokens")
        if self.recipe.lora is None:
            found.append("all weights would be trained: only a plan takes that, training needs an adapter")
        if self.facts and self.facts.num_too_long:
            what = {"drop": "left out", "truncate": "cut", "raise": "the run ends at the first"}[
                self.recipe.data.too_long
            ]
            found.append(
                f"{self.facts.num_too_long:,} rows are longer than {self.recipe.data.max_length} tokens: {what}"
            )
        return (*found, *self._general_notes)

    @property
    def _general_notes(self) -> tuple[str, ...]:
        facts = self.facts
        if facts is None or facts.num_general >= facts.num_general_wanted:
            return ()
        num_domain, share = facts.num_rows - facts.num_general, self.recipe.data.general_share
        words = general_words(share, num_domain, facts.num_general_wanted, facts.num_general)
        return (f"{words}; training {'refuses' if facts.is_exact else 'may refuse'} that",)

    def as_json(self) -> dict[str, Any]:
        """Bytes, seconds and the price's currency; what is not known is null."""
        cost = self.cost
        return {
            "base": self.recipe.base_name or str(self.recipe.base),
            "model_type": self.shape.model_type,
            "num_parameters": self.shape.num_parameters,
            "num_trainable": self.num_trainable,
            "share_trainable": self.share_trainable,
            "effective_batch_size": self.recipe.steps.effective_batch_size * self.num_devices,
            "device": {"name": self.device.name, "kind": self.device.kind, "total_bytes": self.device.total_bytes,
                       "free_bytes": self.device.free_bytes, "is_there": self.device.is_there, "count": self.num_devices},
            "memory": _memory_json(self.memory),
            "ways": {name: _memory_json(way) for name, way in self.ways.items()},
            "fits": self.fits,
            "is_tight": self.is_tight,
            "remedy": self.remedy and {"changes": list(self.remedy.changes), "total_bytes": self.remedy.total_bytes,
                                       "card": self.remedy.card or None},
            "faster": self.faster and {"change": self.faster.words, "times": self.faster.times,
                                       "total_bytes": self.faster.total_bytes},
            "rank": self.advice and {"advised": self.advice.rank, "is_followed": self.advice.is_followed, "words": self.advice.words},
            "data": self.facts and _facts_json(self.facts),
            "steps": self.steps and _steps_json(self.steps),
            "speed": self.speed and {"seconds": self.speed.seconds, "tokens_per_s": self.speed.tokens_per_s, "basis": self.speed.basis},
            "cost": None if cost is None else {"one_try": cost, "tries": {str(count): count * cost for count in NUM_TRIES}},
            "notes": list(self.notes),
        }  # fmt: skip


def plan(
    recipe: Recipe, facts: DataFacts | None, device: Device, price: float | None = None, num_devices: int = 1
) -> Plan:
    """Pure, but for reading the base's config.json. `num_devices` hold a copy of the model each. Raises RecipeUnusable."""
    shape = ModelShape.read(recipe.base)
    tokens = micro_batch_tokens(recipe, facts)
    memory = estimate(shape, recipe, device, tokens)
    steps = steps_of(recipe, facts, device, num_devices) if facts and facts.num_rows else None
    fits = memory.total <= device.free_bytes
    return Plan(
        recipe=recipe, shape=shape, device=device, num_devices=num_devices, num_trainable=num_trainable(shape, recipe.lora),
        memory=memory, ways=side_by_side(shape, recipe, device, tokens), facts=facts,
        advice=advise(recipe.lora.rank, (facts.num_own or facts.num_rows) if facts else None) if recipe.lora else None, steps=steps,
        speed=speed(shape, recipe, device, steps, facts.row_of_a_token) if steps and facts else None, price=price,
        remedy=None if fits else _remedy(shape, recipe, device, facts),
        faster=_faster(shape, recipe, device, facts, num_devices) if fits and steps and facts else None,
    )  # fmt: skip


def micro_batch_tokens(recipe: Recipe, facts: DataFacts | None) -> int:
    """Of the largest micro batch: packs are full, rows are padded to the longest."""
    length = recipe.data.max_length
    if not recipe.memory.packing and facts and facts.num_rows:
        length = min(length, facts.longest)
    return recipe.steps.micro_batch_size * length


def _remedy(shape: ModelShape, recipe: Recipe, device: Device, facts: DataFacts | None) -> Remedy:
    def total(changed: Recipe) -> int:
        return estimate(shape, changed, device, micro_batch_tokens(changed, facts)).total

    def total_on(other: Device) -> int:
        return estimate(shape, recipe, other, micro_batch_tokens(recipe, facts)).total

    return remedy.find(recipe, device, total, total_on)


def _faster(shape: ModelShape, recipe: Recipe, device: Device, facts: DataFacts, num_devices: int) -> Faster | None:
    def total(changed: Recipe) -> int:
        return estimate(shape, changed, device, micro_batch_tokens(changed, facts)).total

    def seconds(changed: Recipe) -> float:
        found = speed(shape, changed, device, steps_of(changed, facts, device, num_devices), facts.row_of_a_token)
        return found.seconds if found else 0.0

    if device.tflops is None:
        return None
    return faster.find(recipe, int(TIGHT * device.free_bytes), total, seconds)


def limited(device: Device, limit_bytes: int) -> Device:
    """The device as a run sees it that may take no more."""
    return replace(device, free_bytes=min(device.free_bytes, limit_bytes))


def _memory_json(memory: MemoryPlan) -> dict[str, Any]:
    return {"parts": dict(memory.parts), "total": memory.total, "allocated": memory.allocated, "peak": memory.peak}


def _facts_json(facts: DataFacts) -> dict[str, Any]:
    return {
        "num_rows": facts.num_rows, "num_tokens": facts.num_tokens, "mean_length": facts.mean_length, "longest": facts.longest,
        "num_eval_rows": facts.num_eval_rows, "num_general": facts.num_general,
        "num_general_wanted": facts.num_general_wanted, "num_too_long": facts.num_too_long,
        "num_unreadable": facts.num_unreadable, "is_exact": facts.is_exact,
    }  # fmt: skip


def _steps_json(steps: Steps) -> dict[str, Any]:
    return {
        "units": steps.units, "num_units": steps.num_units, "num_tokens": steps.num_tokens, "num_computed": steps.num_computed,
        "per_epoch": steps.per_epoch, "num_steps": steps.num_steps,
    }  # fmt: skip
