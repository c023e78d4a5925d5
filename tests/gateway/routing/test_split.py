"""Who gets which version of a split alias: the proportions, and how few move when they change."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.split import pick
from gateway.snapshot import Share

NUM_USERS = 10_000
KEYS = [f"user-{number}".encode() for number in range(NUM_USERS)]


def assign(**weights: int) -> list[str]:
    shares = [Share(name, weight) for name, weight in weights.items()]
    return [pick(shares, key).adapter for key in KEYS]


def distance(before: dict[str, int], after: dict[str, int]) -> float:
    """Total variation: the least part of the users that must move."""
    sums = sum(before.values()), sum(after.values())
    return sum(abs(before.get(name, 0) / sums[0] - after.get(name, 0) / sums[1]) for name in {*before, *after}) / 2


def moved(before: dict[str, int], after: dict[str, int]) -> float:
    pairs = zip(assign(**before), assign(**after), strict=True)
    return sum(one != other for one, other in pairs) / NUM_USERS


def noise(part: float) -> float:
    """Four standard errors."""
    return 4 * math.sqrt(max(part, 1e-4) * (1 - part) / NUM_USERS) + 1e-9


@pytest.mark.parametrize(
    "weights", [{"a": 9, "b": 1}, {"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 1}, {"a": 999, "b": 1}]
)
def test_proportions(weights: dict[str, int]) -> None:
    counts = Counter(assign(**weights))
    for name, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(counts[name] / NUM_USERS - expected) < noise(expected)


def test_only_ratios_count() -> None:
    assert assign(a=9, b=1) == assign(a=90, b=10)


def test_order_does_not_matter() -> None:
    assert assign(a=3, b=1, c=1) == assign(c=1, b=1, a=3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 95, "b": 5}, {"a": 50, "b": 50}),  # a canary that grows
        ({"a": 50, "b": 50}, {"b": 1}),  # a flip after a split
        ({"a": 1}, {"a": 90, "b": 10}),  # a canary begins
        ({"a": 2, "b": 1, "c": 1}, {"a": 2, "b": 1}),  # one version is withdrawn
    ],
)
def test_no_more_users_move_than_must(before: dict[str, int], after: dict[str, int]) -> None:
    least = distance(before, after)
    assert abs(moved(before, after) - least) < noise(least)


def test_a_weight_that_grows_sends_nobody_away() -> None:
    pairs = Counter(zip(assign(a=5, b=3, c=2), assign(a=5, b=6, c=2), strict=True))
    assert {pair for pair in pairs if pair[0] != pair[1]} == {("a", "b"), ("c", "b")}


@pytest.mark.parametrize(
    ("before", "after"),
    [({"a": 8, "b": 1, "c": 1}, {"a": 7, "b": 1, "c": 2}), ({"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1})],
)
def test_with_more_than_two_versions_few_others_move(before: dict[str, int], after: dict[str, int]) -> None:
    least = distance(before, after)
    most = 2 * least / (1 + least)
    assert least - noise(least) < moved(before, after) < most + noise(most)


def test_splits_of_different_aliases_are_independent() -> None:
    pairs = Counter(zip(assign(a=1, b=1), assign(c=1, d=1), strict=True))
    assert max(abs(num / NUM_USERS - 0.25) for num in pairs.values()) < noise(0.25)


@given(st.binary(max_size=80), st.dictionaries(st.text(max_size=5), st.integers(1, 10**9), min_size=1, max_size=5))
def test_any_key_has_one_version(key: bytes, weights: dict[str, int]) -> None:
    shares = [Share(name, weight) for name, weight in weights.items()]
    chosen = pick(shares, key)
    assert chosen in shares
    assert pick(shares[::-1], key) == chosen
