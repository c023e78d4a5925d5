"""Guards: what they find in sick curves, and that they keep quiet about ordinary ones."""

from __future__ import annotations

import math
import random
import secrets

import pytest

from finetune.recipe.recipe import Steps
from finetune.run.finding import rows_words
from finetune.run.guards import MAX_OVERFLOWS, Watch
from tests.finetune.run.losses import findings, flat, ordinary, steps, with_hard_rows

SEED = secrets.randbits(32)
GIB = 1 << 30


def healthy(count: int) -> list[float]:
    return ordinary(random.Random(7), count, 0.05)


# not a number -------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_names_rows_and_remedy() -> None:
    (found,) = findings(steps([*healthy(9), math.nan]))
    assert (found.name, found.step, found.rows, found.is_fatal) == ("nan", 10, (100, 101), True)
    assert "rows 100 and 101" in found.message
    assert "float32: true in place of bf16: true" in found.message
    assert "fp16" not in found.message


@pytest.mark.parametrize(
    ("dtype", "clip", "said"),
    [
        ("bfloat16", 0.0, "Clip gradients with max_grad_norm: 1.0, or use float32: true"),
        ("bfloat16", 1.0, "Lower learning_rate (now 0.0002), or use float32: true"),
        ("float16", 1.0, "bf16: true where the GPU has it, float32: true elsewhere"),
        ("float32", 1.0, "Lower learning_rate"),
    ],
)
def test_the_remedy_fits_what_the_recipe_already_does(dtype: str, clip: float, said: str) -> None:
    (found,) = findings(steps([math.inf]), Steps(max_grad_norm=clip), dtype)
    assert said in found.message


def test_nothing_to_train_on_is_an_empty_mask_and_not_a_matter_of_precision() -> None:
    (found,) = findings(steps([math.nan], num_trained_tokens=0))
    assert "The loss mask of rows 10 and 11 is empty" in found.message


def test_float16s_overflows_are_ordinary_until_they_do_not_end() -> None:
    few = list(steps([1.0] * (MAX_OVERFLOWS - 1), grad_norm=math.inf))
    assert not findings(few, dtype="float16")
    many = list(steps([1.0] * MAX_OVERFLOWS, grad_norm=math.inf))
    assert [each.name for each in findings(many, dtype="float16")] == ["nan"]
    assert findings(few[:1], dtype="bfloat16")[0].is_fatal


def test_a_loss_that_was_not_told_counts_as_none() -> None:
    (found,) = findings(steps([1.0], loss=None))
    assert found.name == "nan"


# zero ---------------------------------------------------------------------------------------------------------------


def test_zeros_are_an_empty_loss_mask() -> None:
    (found,) = findings(steps([0.0, 0.0, 0.0], num_trained_tokens=0))
    assert (found.name, found.is_fatal, found.rows) == ("zero_loss", True, (10, 11, 20, 21, 30, 31))
    assert "empty" in found.message
    assert "since step 1" in found.message
    assert "sequence_len" in found.message


def test_zeros_with_trained_tokens_are_a_hidden_nan() -> None:
    (found,) = findings(steps([1.2, 0.0, 0.0, 0.0]))
    assert found.is_fatal
    assert "NaN that was replaced" in found.message


def test_zeros_after_small_losses_are_rows_learnt_by_heart() -> None:
    (found,) = findings(steps([*[0.5 * 0.9**step for step in range(80)], 0.0, 0.0, 0.0]))
    assert not found.is_fatal
    assert "by heart" in found.message


def test_one_zero_is_nothing() -> None:
    assert not findings(steps([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]))


# never falls --------------------------------------------------------------------------------------------------------


def test_a_loss_that_never_falls_is_told_once() -> None:
    found = findings(steps(flat(random.Random(3), 400, 0.02)), Steps(learning_rate=1e-7))
    assert [each.name for each in found] == ["never_falls"]
    assert "learning_rate (now 1e-07) is too low" in found[0].message
    assert not found[0].is_fatal


@pytest.mark.parametrize(("noise", "num_steps"), [(0.0, 60), (0.03, 200), (0.1, 800)])
def test_the_noise_decides_when_a_flat_loss_is_seen(noise: float, num_steps: int) -> None:
    rng = random.Random(SEED)
    seen = sum(bool(findings(steps(flat(rng, num_steps, noise)), num_steps=num_steps)) for _ in range(60))
    assert seen >= 51, f"seed {SEED}"


def test_a_short_run_is_judged_at_its_end() -> None:
    curve = flat(random.Random(3), 45, 0.01)
    assert not findings(steps(curve))
    assert [each.name for each in findings(steps(curve), num_steps=45)] == ["never_falls"]


def test_a_long_warm_up_is_waited_for() -> None:
    curve = flat(random.Random(3), 120, 0.01)
    assert not findings(steps(curve), Steps(warmup_steps=100))
    assert not findings(steps(curve), Steps(warmup_ratio=0.1), num_steps=1000)
    assert findings(steps(curve), Steps(warmup_steps=10))


# spikes -------------------------------------------------------------------------------------------------------------


def test_a_spike_names_its_rows_and_the_run_goes_on() -> None:
    curve = healthy(100)
    curve[69] = 9.0
    (found,) = findings(steps(curve))
    assert (found.name, found.step, found.is_fatal) == ("spike", 70, False)
    assert "rows 700 and 701" in found.message
    assert "learning_rate" in found.message


def test_a_spike_of_few_tokens_is_noise() -> None:
    curve = ordinary(random.Random(7), 100, 0.1)
    curve[69] *= 4
    events = list(steps(curve))
    assert [each.name for each in findings(events)] == ["spike"]
    events[69]["num_trained_tokens"] = 20
    assert not findings(events)


def test_a_loss_that_rises_and_stays_ends_the_run() -> None:
    curve = [*healthy(100), *[7.0 + 0.1 * math.sin(step) for step in range(40)]]
    found = findings(steps(curve))
    assert [each.name for each in found if each.is_fatal][:1] == ["diverged"]
    fatal = next(each for each in found if each.is_fatal)
    assert "since step 101" in fatal.message
    assert "learning_rate (now 0.0002) is too high" in fatal.message


# memory -------------------------------------------------------------------------------------------------------------


def test_memory_above_four_fifths_is_told_once_and_again_when_it_is_nearly_full() -> None:
    peaks = [10, 19, 20, 21, 23, 23.5]
    events = [{**event, "peak_bytes": int(peak * GIB)} for event, peak in zip(steps([1.0] * 6), peaks, strict=True)]
    found = findings(events, Steps(micro_batch_size=4, gradient_accumulation_steps=4))
    assert [(each.name, each.step) for each in found] == [("memory", 3), ("memory", 5)]
    assert "20.0 of 24.0 GiB (83%)" in found[0].message
    assert "micro_batch_size: 2 and gradient_accumulation_steps: 8" in found[0].message


def test_a_device_of_unknown_size_is_not_judged() -> None:
    assert not findings(steps([1.0], total_bytes=0, peak_bytes=1 << 60))


# no false alarm -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.25, 0.5])
def test_ordinary_curves_raise_no_alarm(noise: float) -> None:
    rng = random.Random(SEED)
    alarms = []
    for _ in range(12):
        curve = ordinary(rng, 500, noise)
        alarms += findings(steps(curve), num_steps=500)
    assert not alarms, f"seed {SEED}: {alarms[0].message}"


def test_general_rows_among_others_raise_no_alarm() -> None:
    rng = random.Random(SEED)
    alarms = []
    for _ in range(12):
        curve = with_hard_rows(rng, ordinary(rng, 500, 0.15), share=0.15, factor=8.0)
        alarms += findings(steps(curve), num_steps=500)
    assert not alarms, f"seed {SEED}: {alarms[0].message}"


def test_the_findings_of_a_resumed_run_are_those_of_one_run() -> None:
    curve = flat(random.Random(3), 200, 0.02)
    whole = [each.step for each in findings(steps(curve))]
    watch, seen = Watch(Steps()), []
    for event in list(steps(curve))[:90]:
        watch.look(event)
    again = Watch(Steps())
    for event in steps(curve):
        found = again.look(event)  # the first 90 are what an earlier attempt told
        if event["step"] > 0 and found:
            seen.append(found.step)
    assert seen == whole


def test_other_events_are_not_looked_at() -> None:
    assert Watch().look({"event": "eval", "step": 3, "loss": math.nan}) is None


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "rows that are not known"),
        ([7], "row 7"),
        ([9, 3, 3], "rows 3 and 9"),
        (range(1, 9), "rows 1, 2, 3, 4, 5, 6, 7 and 8"),
        (range(1, 51), "rows 1, 2, 3, 4, 5, 6, 7 and 43 more"),
    ],
)
def test_rows_in_words(rows: list[int], words: str) -> None:
    assert rows_words(rows) == words
