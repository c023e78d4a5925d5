"""What a churn's verdicts are computed from: the ideal LRU, loads, overtaking, memory, draws."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.adapter_churn import Memory, Zipf, began_load, ideal_hits, most_overtaken
from tests.benchmarks.replies import reply


@pytest.mark.parametrize(
    ("arrivals", "resident", "num_hits"),
    [("aaaa", "", 3), ("abab", "ab", 4), ("abcabc", "", 0), ("abacab", "", 2), ("ca", "ab", 0), ("cb", "ab", 1)],
)
def test_an_ideal_lru_of_two(arrivals: str, resident: str, num_hits: int) -> None:
    assert ideal_hits(arrivals, list(resident), 2) == num_hits


def test_who_joins_a_load_begins_none() -> None:
    replies = [
        reply(model="a", sent_s=1.0, wait_ms=2000),
        reply(model="b", sent_s=1.5, wait_ms=1000),
        reply(model="a", sent_s=2.0, wait_ms=1000),  # joined
        reply(model="a", sent_s=3.1, wait_ms=None),  # there
        reply(model="a", sent_s=4.0, wait_ms=1),  # gone again
    ]
    assert began_load(replies) == [True, True, False, False, True]


def test_overtaking_is_counted_for_the_one_that_it_befell_most() -> None:
    assert most_overtaken([]) == 0
    assert most_overtaken([reply(begun_s=at) for at in (1.0, 2.0, 3.0)]) == 0
    assert most_overtaken([reply(begun_s=at) for at in (5.0, 2.0, 3.0, 6.0)]) == 2
    assert most_overtaken([reply(begun_s=None), reply(begun_s=2.0)]) == 1


def test_memory_is_compared_by_thirds() -> None:
    assert Memory({"engine": [1, 1, 9, 5, 5, 5, 7, 7, 7]}).thirds() == {"engine": [1, 5, 7]}


def test_draws_follow_zipf_and_their_seed() -> None:
    zipf = Zipf(50, random.Random(3))
    counts = Counter(zipf.draw(random.Random(f"draw {number}")) for number in range(20_000))
    most = [num for _, num in counts.most_common()]
    harmonic = sum(1 / rank for rank in range(1, 51))
    assert len(counts) == 50
    assert [num / 20_000 for num in most[:3]] == pytest.approx([1 / harmonic / rank for rank in (1, 2, 3)], rel=0.06)
    assert Zipf(50, random.Random(3)).draw(random.Random(1)) == zipf.draw(random.Random(1))
