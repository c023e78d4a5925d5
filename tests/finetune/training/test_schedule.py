"""Ends, evaluations and saves by steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from finetune.training.schedule import schedule_of, should_stop
from tests.finetune.training.rig import make_recipe


def recipe(**changes: object) -> object:
    return make_recipe(Path("run"), Path("rows.jsonl"), **changes)


@pytest.mark.parametrize(
    ("packs", "processes", "steps", "expected"),
    [
        (
            100,
            1,
            {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "num_epochs": 3.0, "max_steps": 0},
            (39, 13),
        ),
        (100, 2, {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "num_epochs": 1.0, "max_steps": 0}, (7, 7)),
        (
            100,
            1,
            {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 0.5, "max_steps": 0},
            (50, 100),
        ),
        (
            100,
            1,
            {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 9.0, "max_steps": 7},
            (7, 100),
        ),
        (3, 1, {"micro_batch_size": 8, "gradient_accumulation_steps": 8, "num_epochs": 2.0, "max_steps": 500}, (2, 1)),
    ],
)
def test_how_many_steps(packs: int, processes: int, steps: dict[str, float], expected: tuple[int, int]) -> None:
    schedule = schedule_of(recipe(steps=steps), packs, processes, True)  # type: ignore[arg-type]
    assert (schedule.num_steps, schedule.steps_per_epoch) == expected


def test_max_steps_ends_a_run_but_never_prolongs_it() -> None:
    assert schedule_of(recipe(steps={"max_steps": 7}), 100, 1, False).ends_early  # type: ignore[arg-type]
    assert not schedule_of(recipe(steps={"max_steps": 5000}), 100, 1, False).ends_early  # type: ignore[arg-type]


def test_without_numbers_it_is_evaluated_and_saved_at_the_end_of_every_epoch_and_at_the_end() -> None:
    schedule = schedule_of(recipe(steps={"num_epochs": 2.5, "max_steps": 0}), 20, 1, True)  # type: ignore[arg-type]
    due = [step for step in range(1, 26) if schedule.is_eval_due(step)]
    assert due == [step for step in range(1, 26) if schedule.is_save_due(step)] == [10, 20, 25]


def test_so_many_evaluations_per_epoch_are_spread_evenly() -> None:
    watch = {"evals_per_epoch": 4, "saves_per_epoch": 2}
    schedule = schedule_of(recipe(steps={"max_steps": 0}, watch=watch), 40, 1, True)  # type: ignore[arg-type]
    assert (schedule.eval_every, schedule.save_every) == (5, 10)


def test_what_is_saved_is_told() -> None:
    watch = {"logging_steps": 10, "save_steps": 4}
    schedule = schedule_of(recipe(steps={"max_steps": 15}, watch=watch), 100, 1, False)  # type: ignore[arg-type]
    assert [step for step in range(1, 16) if schedule.is_log_due(step)] == [4, 8, 10, 12, 15]
    assert not schedule.is_eval_due(15)


@pytest.mark.parametrize(
    ("losses", "patience", "is_over"),
    [
        ([], 2, False),
        ([3.0, 2.0, 2.5], 2, False),
        ([3.0, 2.0, 2.5, 2.0], 2, True),
        ([3.0, 2.0, 2.5, 1.9], 2, False),
        ([3.0, 2.0, 2.5, 2.1], 0, False),
        ([math.nan, math.nan], 2, True),
        ([math.nan, 2.0, math.inf], 2, False),
        ([math.nan, 2.0, math.inf, math.nan], 2, True),
    ],
)
def test_early_stop(losses: list[float], patience: int, is_over: bool) -> None:
    """Of two equal losses the earlier one is the lowest."""
    assert should_stop(losses, patience) == is_over
