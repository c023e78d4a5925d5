from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune.plan.device import named
from finetune.plan.ladder import MIN_LENGTH, next_step
from finetune.plan.memory import estimate
from finetune.recipe.recipe import Recipe
from tests.finetune.plan import models

RECIPES = st.builds(
    models.recipe,
    micro_batch_size=st.integers(1, 64),
    gradient_accumulation_steps=st.integers(1, 48),
    max_length=st.integers(16, 16384),
    too_long=st.sampled_from(["drop", "truncate", "raise"]),
    rank=st.integers(1, 128),
    targets=st.sampled_from([("all-linear",), ("q_proj", "v_proj")]),
    gradient_checkpointing=st.booleans(),
    keep_outputs=st.sampled_from([(), ("down_proj",)]),
    chunked_loss=st.booleans(),
    load_in_4bit=st.booleans(),
    packing=st.booleans(),
    optimizer=st.sampled_from(["adamw_torch", "adamw_8bit", "paged_adamw_8bit"]),
    loss=st.sampled_from(["", "mine:Loss"]),
)


def descent(recipe: Recipe, allow_shorter: bool, has_gpu: bool = True) -> list[Recipe]:
    found = [recipe]
    while step := next_step(found[-1], allow_shorter, has_gpu):
        found.append(step.recipe)
        assert len(found) < 50, "the ladder does not end"
    return found


@given(RECIPES, st.booleans(), st.booleans())
def test_every_step_keeps_what_is_learned(recipe: Recipe, allow_shorter: bool, has_gpu: bool) -> None:
    for before, after in zip(found := descent(recipe, allow_shorter, has_gpu), found[1:], strict=False):
        assert after != before
        assert after.steps.effective_batch_size == recipe.steps.effective_batch_size
        assert after.lora == recipe.lora
        changed = replace(
            after,
            steps=replace(
                after.steps, micro_batch_size=recipe.steps.micro_batch_size, optimizer=recipe.steps.optimizer,
                gradient_accumulation_steps=recipe.steps.gradient_accumulation_steps,
            ),
            memory=recipe.memory,
            data=replace(after.data, max_length=recipe.data.max_length),
        )  # fmt: skip
        assert changed == recipe
        if not allow_shorter:
            assert after.data == recipe.data


@given(RECIPES, st.booleans())
def test_it_ends_at_the_least_that_a_run_can_take(recipe: Recipe, allow_shorter: bool) -> None:
    last = descent(recipe, allow_shorter)[-1]
    assert last.steps.micro_batch_size == 1
    assert last.memory.gradient_checkpointing
    assert last.memory.load_in_4bit
    assert last.memory.chunked_loss or last.steps.loss
    assert last.steps.optimizer == "paged_adamw_8bit"
    if allow_shorter and recipe.data.too_long != "raise":
        assert last.data.max_length < 2 * MIN_LENGTH


@settings(max_examples=40)
@given(RECIPES)
def test_no_step_takes_more_memory(recipe: Recipe) -> None:
    """Where there are more tokens than a chunk of logits has."""
    assume(recipe.data.max_length >= 1024)
    shape, device = models.shape(models.LLAMA_31_8B), named("H200")
    totals = [estimate(shape, one, device).total for one in descent(recipe, allow_shorter=True)]
    assert totals == sorted(totals, reverse=True)


def test_the_order_is_the_articles() -> None:
    recipe = models.recipe(
        micro_batch_size=4, gradient_accumulation_steps=2, max_length=1024, optimizer="adamw_torch",
        gradient_checkpointing=False, chunked_loss=False, load_in_4bit=False,
    )  # fmt: skip
    words = []
    while step := next_step(recipe, allow_shorter=True):
        words.append(step.words.partition(":")[0])
        recipe = step.recipe
    assert words == [
        "micro_batch_size 4 -> 2, gradient_accumulation_steps 2 -> 4",
        "micro_batch_size 2 -> 1, gradient_accumulation_steps 4 -> 8",
        "gradient_checkpointing",
        "chunked_loss",
        "optimizer adamw_torch -> paged_adamw_8bit",
        "load_in_4bit",
        "sequence_len 1024 -> 512",
        "sequence_len 512 -> 256",
    ]


@pytest.mark.parametrize(
    ("micro", "accumulated", "expected"),
    [(8, 2, (4, 4)), (3, 4, (1, 12)), (7, 1, (1, 7)), (6, 5, (3, 10)), (5, 2, (2, 5))],
)
def test_odd_micro_batches_go_to_the_next_size_that_divides(
    micro: int, accumulated: int, expected: tuple[int, int]
) -> None:
    step = next_step(models.recipe(micro_batch_size=micro, gradient_accumulation_steps=accumulated), False)
    assert step is not None
    assert (step.recipe.steps.micro_batch_size, step.recipe.steps.gradient_accumulation_steps) == expected


def test_on_a_processor_the_optimizer_stays() -> None:
    recipe = models.recipe(optimizer="adamw_torch")
    assert next_step(recipe, allow_shorter=False, has_gpu=False) is None
    assert next_step(recipe, allow_shorter=False, has_gpu=True) is not None


def test_weights_that_are_all_trained_are_not_quantised() -> None:
    recipe = models.recipe(lora=None, load_in_4bit=False)
    assert next_step(recipe, allow_shorter=False) is None
