"""What was proven is recognised by one text, and nothing else is taken for it."""

from __future__ import annotations

import math
import random

import pytest

from backends.adapter.recognition import MAX_TOKENS, MIN_DIFFERENCE, Likeness, likeness

CHANCE = random.Random(11)
NUM_TOKENS = 24
PROMPTS = [[CHANCE.randrange(1000) for _ in range(NUM_TOKENS + 1)] for _ in range(6)]
BASE = [[CHANCE.gauss(-3, 1) for _ in range(NUM_TOKENS)] for _ in PROMPTS]
EFFECT = [[CHANCE.gauss(0, 4 if index == 5 else 1) for _ in range(NUM_TOKENS)] for index, _ in enumerate(PROMPTS)]


def scores(scale: float = 1.0, noise: float = 0.0, index: int = 5) -> list[float]:
    """Of the whole text."""
    return [
        base + scale * effect + CHANCE.gauss(0, noise) for base, effect in zip(BASE[index], EFFECT[index], strict=True)
    ]


def begun(scale: float = 1.0, noise: float = 0.0) -> list[float]:
    """What is answered to the likeness's prompt."""
    return scores(scale, noise)[: MAX_TOKENS - 1]


def known() -> Likeness:
    found = likeness(PROMPTS, BASE, [scores(index=index) for index in range(len(PROMPTS))])
    assert found is not None
    return found


def test_the_beginning_with_the_greatest_difference_is_asked_for() -> None:
    assert known().prompt == PROMPTS[5][:MAX_TOKENS]
    assert known().difference == pytest.approx(sum(map(abs, EFFECT[5][: MAX_TOKENS - 1])))


def test_where_no_beginning_differs_a_whole_text_is_asked_for() -> None:
    late = [[*base[: MAX_TOKENS - 1], *(score + 2.0 for score in base[MAX_TOKENS - 1 :])] for base in BASE]
    found = likeness(PROMPTS, BASE, late)
    assert found is not None
    assert found.prompt == PROMPTS[0]
    assert found.fits(late[0])
    assert not found.fits(BASE[0])


def test_the_same_answers_and_what_batching_does_to_them_are_recognised() -> None:
    assert known().fits(begun())
    assert known().fits(begun(noise=0.05))


@pytest.mark.parametrize("scale", [0.0, 0.5, 0.9, 1.1, 2.0, -1.0])
def test_the_base_and_another_scale_are_not(scale: float) -> None:
    assert not known().fits(begun(scale))


def test_one_score_that_is_no_number_is_not() -> None:
    assert not known().fits([math.nan, *begun()[1:]])
    assert not known().fits([-math.inf, *begun()[1:]])


def test_an_adapter_that_hardly_differs_has_no_likeness() -> None:
    faint = [[score + MIN_DIFFERENCE / 2 for score in row] for row in BASE]
    assert likeness(PROMPTS, BASE, faint) is None
    assert likeness([], [], []) is None
    assert likeness([[1]], [[]], [[]]) is None
    assert likeness(PROMPTS, BASE, [[math.nan] * NUM_TOKENS for _ in BASE]) is None
