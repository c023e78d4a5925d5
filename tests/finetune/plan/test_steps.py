from __future__ import annotations

import math

import pytest

from finetune.plan.device import named, processor
from finetune.plan.facts import DataFacts
from finetune.plan.steps import steps_of
from tests.finetune.plan import models
from tests.finetune.plan.rows import lognormal

GPU = named("H200")


def test_rows_one_by_one() -> None:
    facts = DataFacts((10,) * 100)
    recipe = models.recipe(packing=False, micro_batch_size=4, gradient_accumulation_steps=3, num_epochs=2)
    steps = steps_of(recipe, facts, GPU)
    assert (steps.units, steps.num_units, steps.num_micro_batches) == ("rows", 100, 25)
    assert (steps.per_epoch, steps.num_steps) == (9, 18)


def test_packs_hold_nearly_all_that_they_could() -> None:
    facts = lognormal(2_000, 300, 2048)
    steps = steps_of(models.recipe(max_length=2048), facts, GPU)
    assert steps.units == "packs"
    assert math.ceil(facts.num_tokens / 2048) <= steps.num_units < 1.03 * facts.num_tokens / 2048


def test_padding_is_computed_only_where_attention_needs_it() -> None:
    facts = DataFacts((10, 30) * 200)
    flat = steps_of(models.recipe(packing=False, micro_batch_size=2), facts, GPU)
    padded = steps_of(models.recipe(packing=False, micro_batch_size=2, attention="sdpa"), facts, GPU)
    assert flat.num_computed == facts.num_tokens
    # Half of the pairs have one of each.
    assert padded.num_computed / facts.num_tokens == pytest.approx(1.25, abs=0.08)
    plain = models.recipe(packing=False, micro_batch_size=2)
    assert steps_of(plain, facts, processor()) == padded
    assert steps_of(plain, facts, named("T4")) == padded, "kernels that go by lengths are for younger cards"
    assert steps_of(models.recipe(packing=False, micro_batch_size=2, dtype="float32"), facts, GPU) == padded


def test_two_devices_take_half_of_the_steps() -> None:
    facts = DataFacts((10,) * 96)
    recipe = models.recipe(packing=False, micro_batch_size=2, gradient_accumulation_steps=4, num_epochs=1)
    one, two = (steps_of(recipe, facts, GPU, count) for count in (1, 2))
    assert (one.num_steps, two.num_steps) == (12, 6)
    assert one.tokens_per_micro_batch == two.tokens_per_micro_batch == 20
