from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import finetune
from finetune.plan.device import CORE_TFLOPS, named, processor
from finetune.plan.facts import DataFacts
from finetune.plan.plan import Plan, plan
from finetune.plan.shape import ModelShape
from finetune.plan.steps import steps_of
from finetune.plan.time import Speed, device_seconds, flops_per_token, micro_batch_seconds, speed
from finetune.recipe.reading import read
from tests.finetune.plan import models
from tests.finetune.plan.rows import lognormal

TICKETS = lognormal(5_000, 550, 2048)
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
RECIPES = Path(finetune.__file__).parent / "recipes"
OURS = models.recipe(micro_batch_size=2, gradient_accumulation_steps=2)
"""As `benchmarks.train_speed` trains on an H200."""
_ON_4090 = {"rank": 8, "micro_batch_size": 2, "compile": True}
_LF = {"rank": 8, "memory": models.PLAIN, "attention": "sdpa", "micro_batch_size": 4, "max_length": 1024}
OTHERS = [
    ("torchtune, 8B QLoRA on RTX 4090", models.LLAMA_31_8B, "RTX4090", TICKETS, _ON_4090, 2413),
    (
        "torchtune, 8B LoRA on RTX 4090",
        models.LLAMA_31_8B,
        "RTX4090",
        TICKETS,
        _ON_4090 | {"load_in_4bit": False},
        3083,
    ),
    ("LLaMA-Factory, 7B QLoRA on A100", models.LLAMA_2_7B, "A100 40GB", DataFacts((1024,) * 500), _LF, 2415),
]
"""Tokens a second that were published of other trainers, padding left out."""


def speed_of(config: dict[str, Any], card: str, facts: DataFacts, changes: dict[str, Any]) -> Speed:
    recipe, device = models.recipe(**changes), named(card)
    found = speed(models.shape(config), recipe, device, steps_of(recipe, facts, device), facts.row_of_a_token)
    assert found is not None
    return found


def measured() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / "h200-train-speed.json").read_text(encoding="utf-8"))
    return content


def row_length(result: dict[str, Any]) -> float:
    """A token sees half of its row on average, itself among that."""
    return 2 * float(result["data"]["context"]) - 1


def test_the_newest_runs_are_foreseen_within_a_tenth() -> None:
    """Two turns of one recipe: what differs is how fast the host launches."""
    result, shape, errors = measured(), models.shape(models.LLAMA_31_8B), {}
    for turn in result["turns"]:
        if turn.get("variant") == "ours" and "tok_s" in turn:
            tokens = turn["num_tokens"] / (turn["num_updates"] * OURS.steps.gradient_accumulation_steps)
            seconds = micro_batch_seconds(shape, OURS, named("H200"), tokens, row_length(result))
            assert seconds is not None
            errors[turn["turn"]] = tokens / seconds / turn["tok_s"] - 1
            print(f"{turn['turn']}: {tokens / seconds:,.0f} tokens/s foreseen, {errors[turn['turn']]:+.1%}")
    assert len(errors) == 2
    assert {name: error for name, error in errors.items() if abs(error) > 0.1} == {}


def test_what_the_device_computes_is_what_its_profile_shows() -> None:
    """Four micro batches: all of their time but what the device idles."""
    lines = (RESULTS / "h200-train-speed.profile.txt").read_text(encoding="utf-8").splitlines()
    whole = float(lines[0].removeprefix("2 updates: ").split()[0])
    idle = next(float(line.split()[1]) for line in lines if line.endswith(" idle"))
    result = measured()
    tokens = sum(result["turns"][1]["tokens"]) / (result["turns"][1]["num_updates"] * 2)
    found = device_seconds(models.shape(models.LLAMA_31_8B), OURS, named("H200"), tokens, row_length(result))
    assert found == pytest.approx((whole - idle) / 4, rel=0.05)


def test_the_demo_recipe_takes_two_cores_two_and_a_half_minutes() -> None:
    """As its file says, of the 1,200 tickets that it names."""
    text = (RECIPES / "demo-cpu.yaml").read_text(encoding="utf-8")
    assert "two and a half minutes on two cores" in text.splitlines()[0]
    made = read(RECIPES / "demo-cpu.yaml", is_plan=True).recipe
    cores = replace(processor(), tflops=2 * CORE_TFLOPS)
    facts = DataFacts((86,) * 1_200)
    found = speed(ModelShape.read(made.base), made, cores, steps_of(made, facts, cores), facts.row_of_a_token)
    assert found is not None
    assert found.seconds == pytest.approx(150, rel=0.25)


def test_other_trainers_are_at_most_twice_as_fast_or_as_slow() -> None:
    """They launch, fuse and cast otherwise: what their figures say is that other cards' rates are no others than they are."""
    errors = {}
    for name, config, card, facts, changes, published in OTHERS:
        errors[name] = speed_of(config, card, facts, changes).tokens_per_s / published
        print(f"{name:34s} {errors[name]:.2f}")
    assert {name: share for name, share in errors.items() if not 1 / 2 < share < 2} == {}


@pytest.mark.parametrize(("config", "card", "hours"), [("8B", "RTX4090", 5), ("70B", "A100 80GB", 40)])
def test_the_articles_hours_within_a_factor_of_four(config: str, card: str, hours: float) -> None:
    """5,000 rows, 3 epochs, by its own recipe. It does not say how long its rows are: 1,500 tokens here."""
    facts = lognormal(5_000, 1_500, 4096)
    model = {"8B": models.LLAMA_31_8B, "70B": models.LLAMA_31_70B}[config]
    recipe = {
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "max_length": 4096,
        "dropout": 0.05,
        "num_epochs": 3,
    }
    found = speed_of(model, card, facts, recipe).seconds / 3600
    assert hours / 4 < found < hours


def test_the_articles_cost_of_70b(tmp_path: Any) -> None:
    """About $120 a try at $3 an hour for 40 hours, 3 to 5 tries."""
    base = models.folder(tmp_path / "base", models.LLAMA_31_70B)
    recipe = models.recipe(base, max_length=2048, gradient_accumulation_steps=16)
    made: Plan = plan(recipe, lognormal(5_000, 1_500, 2048), named("A100 80GB"), price=3.0)
    assert made.cost is not None
    assert made.speed is not None
    assert made.cost == pytest.approx(3 * made.speed.seconds / 3600)
    assert 120 / 4 < made.cost < 120
    tries = made.as_json()["cost"]["tries"]
    assert tries == {"3": 3 * made.cost, "5": 5 * made.cost}


def test_flops_of_frozen_weights_are_six_a_weight_with_checkpointing_and_four_without() -> None:
    shape = models.shape(models.LLAMA_31_8B)
    with_it, without = (models.recipe(gradient_checkpointing=on, rank=1) for on in (True, False))
    head = shape.vocab * shape.hidden
    assert flops_per_token(shape, with_it, 0) == pytest.approx(6 * shape.num_block_weights + 4 * head, rel=0.001)
    assert flops_per_token(shape, without, 0) == pytest.approx(4 * (shape.num_block_weights + head), rel=0.001)


def test_flops_of_all_weights_trained_are_eight_with_checkpointing() -> None:
    shape = models.shape(models.LLAMA_31_8B)
    found = flops_per_token(shape, models.recipe(lora=None, load_in_4bit=False), 0)
    assert found == pytest.approx(8 * shape.num_block_weights, rel=0.1)


def test_outputs_that_are_kept_are_not_computed_again() -> None:
    shape = models.shape(models.LLAMA_31_8B)
    plain, kept = (flops_per_token(shape, models.recipe(keep_outputs=names), 0) for names in ((), ("down_proj",)))
    assert plain - kept == 2 * 32 * 4096 * 14336


def test_attention_grows_with_the_rows() -> None:
    shape = models.shape(models.LLAMA_31_8B)
    long, short = (flops_per_token(shape, models.recipe(), length) for length in (8192, 512))
    assert long - short == pytest.approx(32 * 4096 * (8192 - 512) * 9)


def test_short_micro_batches_are_slow_and_checkpointing_costs_about_a_third() -> None:
    shape, device = models.shape(models.LLAMA_31_8B), named("H200")

    def per_token(num_tokens: int, **changes: Any) -> float:
        seconds = micro_batch_seconds(shape, models.recipe(**changes), device, num_tokens, 500)
        assert seconds is not None
        return seconds / num_tokens

    assert per_token(256) > 4 * per_token(4096)
    assert per_token(8192) == pytest.approx(per_token(16384), rel=0.1), (
        "where the host is fast enough, more is no faster"
    )
    ratio = per_token(4096) / per_token(4096, gradient_checkpointing=False)
    assert 1.2 < ratio < 1.6


def test_a_card_of_which_only_the_memory_is_known_has_no_speed() -> None:
    recipe, device = models.recipe(), named("24GB")
    steps = steps_of(recipe, TICKETS, device)
    assert speed(models.shape(models.LLAMA_31_8B), recipe, device, steps, 550) is None


def test_computing_in_32_bits_is_slow_where_a_card_lacks_bfloat16() -> None:
    shape = models.shape(models.LLAMA_32_3B)
    t4 = named("T4")
    full = micro_batch_seconds(shape, models.recipe(), t4, 2048, 500)
    half = micro_batch_seconds(shape, models.recipe(dtype="float16"), t4, 2048, 500)
    assert full is not None
    assert half is not None
    assert full > 4 * half


def test_max_steps_shortens_the_time() -> None:
    recipe, device = models.recipe(micro_batch_size=2), named("H200")
    short = replace(recipe, steps=replace(recipe.steps, max_steps=10))
    whole, cut = (steps_of(one, TICKETS, device) for one in (recipe, short))
    assert cut.num_steps == 10
    found = speed(models.shape(models.LLAMA_31_8B), short, device, cut, 550)
    assert found is not None
    assert found.seconds == pytest.approx(10 * found.seconds_per_micro_batch, rel=0.01)
    assert whole.num_steps > 1000
