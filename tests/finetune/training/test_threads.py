"""Threads that do not share their cores."""

from __future__ import annotations

import pytest

from finetune.training.threads import choose_threads, usable_cores


@pytest.mark.parametrize(
    ("cores", "load", "expected"), [(2, 0.2, 2), (2, 1.1, 1), (2, 9.0, 1), (16, 3.6, 12), (1, 0.0, 1)]
)
def test_cores_that_others_use_are_left_to_them(cores: int, load: float, expected: int) -> None:
    assert choose_threads(cores, load, {}) == expected


def test_what_the_user_says_is_kept() -> None:
    assert choose_threads(8, 0.0, {"OMP_NUM_THREADS": "3"}) is None
    assert usable_cores() >= 1
