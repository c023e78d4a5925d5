import math
from fractions import Fraction

import pytest

from benchmarks.statistics.binomial import (
    Answer,
    allowed_misses,
    binomial_test,
    chance_of_at_most,
    fixed_queries,
    required_queries,
)


@pytest.mark.parametrize(
    ("percentile", "needed", "rounded"),
    [(0.9, 23_886, 24_576), (0.95, 50_425, 57_344), (0.97, 85_811, 90_112), (0.99, 262_742, 270_336)],
)
def test_fixed_numbers_are_those_that_mlperf_publishes(percentile: float, needed: int, rounded: int):
    assert fixed_queries(percentile) == (needed, rounded)


@pytest.mark.parametrize(("percentile", "num"), [(0.9, 64), (0.99, 662)])
def test_minima_of_early_stopping_are_mlperfs(percentile: float, num: int):
    """SingleStream's and MultiStream's least number of queries: one may miss."""
    assert required_queries(1, percentile) == num
    assert allowed_misses(num, percentile) == 1
    assert allowed_misses(num - 1, percentile) == 0


def test_none_missed():
    assert required_queries(0, 0.99) == math.ceil(math.log(0.01) / math.log(0.99)) == 459
    assert allowed_misses(458, 0.99) is None
    assert allowed_misses(459, 0.99) == 0


@pytest.mark.parametrize(("num", "misses"), [(50, 0), (200, 12), (664, 1), (2000, 170)])
def test_the_chance_is_exact(num: int, misses: int):
    p = Fraction(9, 10)
    exact = sum(math.comb(num, x) * p ** (num - x) * (1 - p) ** x for x in range(misses + 1))
    assert chance_of_at_most(misses, num, 0.9) == pytest.approx(float(exact), rel=1e-9)


def test_allowed_and_required_are_inverse():
    for misses in (0, 1, 5, 40, 300):
        num = required_queries(misses, 0.95)
        assert allowed_misses(num, 0.95) == misses
        assert (allowed_misses(num - 1, 0.95) if misses else None) == (misses - 1 if misses else None)


def test_three_answers():
    passed = binomial_test(1000, 2, 0.99)
    assert (passed.answer, passed.num_allowed, passed.num_more) == (Answer.PASSED, 2, 0)
    failed = binomial_test(1000, 25, 0.99)
    assert failed.answer is Answer.FAILED
    undecided = binomial_test(1000, 8, 0.99)
    assert undecided.answer is Answer.UNDECIDED
    assert undecided.num_more == required_queries(8, 0.99) - 1000 > 0
    assert binomial_test(0, 0, 0.99).answer is Answer.UNDECIDED
    assert binomial_test(3, 3, 0.99).answer is Answer.FAILED


def test_at_the_percentile_itself_it_seldom_passes():
    """One in a hundred, by its confidence: the misses of a server that is exactly at the limit are binomial."""
    num = 2000
    allowed = allowed_misses(num, 0.99)
    assert allowed is not None
    assert 0.002 < chance_of_at_most(allowed, num, 0.99) <= 0.01


def test_large_numbers():
    allowed = allowed_misses(270_336, 0.99)
    assert allowed is not None
    assert 0.0095 < allowed / 270_336 < 0.01


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((5, 6, 0.9), "6 of 5"), ((5, -1, 0.9), "-1 of 5"), ((5, 1, 1.0), "percentile"), ((5, 1, 0.9, 1.0), "confidence")],
)
def test_numbers_that_cannot_be(arguments: tuple[int, int, float], words: str):
    with pytest.raises(ValueError, match=words):
        binomial_test(*arguments)


def test_it_fails_from_the_first_number_of_misses_that_is_too_unlikely():
    num, p = 200, Fraction(9, 10)
    chances = [math.comb(num, x) * p ** (num - x) * (1 - p) ** x for x in range(num + 1)]
    first = next(misses for misses in range(num) if sum(chances[misses:]) <= Fraction(1, 100))
    assert binomial_test(num, first, 0.9).answer is Answer.FAILED
    assert binomial_test(num, first - 1, 0.9).answer is Answer.UNDECIDED
