from __future__ import annotations

import math
from random import Random
from statistics import mean, median, stdev

import pytest

from benchmarks import train_speed_data
from benchmarks.train_speed_lengths import context, draw, facts


def test_lengths_are_lognormal_bounded_and_of_the_mean_that_was_asked_for() -> None:
    found = draw(4000, 550, 0.7, 16, 2040, seed=3)
    assert mean(found) == pytest.approx(550, abs=1)
    assert 16 <= min(found) <= max(found) <= 2040
    free = [math.log(length) for length in found if length < 2040]
    assert stdev(free) == pytest.approx(0.7, abs=0.08)
    assert median(found) < 0.85 * 550
    assert found == draw(4000, 550, 0.7, 16, 2040, seed=3)
    assert found != draw(4000, 550, 0.7, 16, 2040, seed=4)


def test_a_mean_beyond_the_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie between 16 and 500"):
        draw(10, 550, 0.7, 16, 500, seed=1)


def test_context_is_what_a_token_sees_itself_among_it() -> None:
    assert context([1, 1, 1]) == 1
    assert context([4]) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert facts([4, 2])["context"] == pytest.approx(13 / 6, abs=0.01)


@pytest.mark.parametrize("tokens", [40, 97, 500])
def test_a_row_has_as_many_tokens_as_its_words_come_to(tokens: int) -> None:
    cost = {"ab": 2, "cde": 3, "fghij": 5}
    made = train_speed_data.row(tokens, cost, frame=11, random=Random(1))["messages"]
    words = " ".join(message["content"] for message in made).split()
    assert tokens - 1 <= 11 + sum(cost[word] for word in words) <= tokens
    assert [message["role"] for message in made] == ["user", "assistant"]
    assert all(message["content"] for message in made)
