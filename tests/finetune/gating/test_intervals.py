"""The bounds against what is known exactly, against drawing, and at the edges."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from finetune.gating.intervals import Sample, best_seen, bounds, chance_above, chance_below, negative_chance, sample_of
from finetune.gating.paired import Totals
from tests.finetune.gating.pairs import of_clusters, paired


def lower(skill, level: float) -> float:  # type: ignore[no-untyped-def]
    return bounds(sample_of(skill.totals()), level, level).lower


@pytest.mark.parametrize(("num_lost", "num_items"), [(0, 500), (1, 500), (7, 500), (60, 500), (2, 12), (150, 4000)])
@pytest.mark.parametrize("level", [0.05, 0.006])
def test_where_nothing_is_gained_it_is_the_bound_of_clopper_and_pearson(
    num_lost: int, num_items: int, level: float
) -> None:
    """Were the share that is lost as large as the bound says, so few losses would be seen at the level."""
    share = -lower(paired("facts", num_items - num_lost, num_lost), level) / 100
    seen = sum(comb(num_items, k) * share**k * (1 - share) ** (num_items - k) for k in range(num_lost + 1))
    assert seen == pytest.approx(level, rel=0.02)


@pytest.mark.parametrize(("num_clusters", "size"), [(2, 250), (3, 1), (10, 50), (139, 4), (500, 1)])
def test_of_differences_that_are_all_zero_as_many_clusters_as_there_are_say_how_little(
    num_clusters: int, size: int
) -> None:
    found = bounds(sample_of(of_clusters("facts", [0.0] * num_clusters, size).totals()), 0.05, 0.05)
    assert found.lower == pytest.approx(-100 * (1 - 0.05 ** (1 / num_clusters)), rel=0.02)
    assert found.upper == pytest.approx(-found.lower)


def test_one_cluster_says_next_to_nothing() -> None:
    found = bounds(sample_of(of_clusters("facts", [0.5], 500).totals()), 0.05, 0.05)
    # 0.5 - 1.5 * uniform, and 0.5 + 0.5 * uniform
    assert found.lower == pytest.approx(100 * (0.5 - 1.5 * 0.95), abs=2)
    assert found.upper == pytest.approx(100 * (0.5 + 0.5 * 0.95), abs=2)


def test_the_best_that_can_be_has_an_upper_bound_of_100_points() -> None:
    found = bounds(sample_of(paired("tickets", 0, gained=200).totals()), 0.05, 0.05)
    assert found.upper == pytest.approx(100, abs=1e-6)
    assert found.lower == pytest.approx(100 * (1 - 2 * (1 - 0.05 ** (1 / 200))), abs=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_the_chance_is_what_drawing_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_kinds = int(rng.integers(2, 30))
    values = rng.normal(rng.normal(0, 0.3), 1, num_kinds)
    counts = rng.integers(1, 4, num_kinds).astype(float)
    drawn = (rng.standard_gamma(counts, (400_000, num_kinds)) @ values <= 0).mean()
    found = float(negative_chance(values[None], counts[None])[0])
    assert found == pytest.approx(drawn, rel=0.03, abs=0.003)


def test_a_chance_near_one_half_divides_by_nothing() -> None:
    for middle in (-1e-6, 0.0, 1e-6):
        values = np.array([[1.0, -1.0 + middle, 0.0]])
        assert float(negative_chance(values, np.array([[5.0, 5.0, 3.0]]))[0]) == pytest.approx(0.5, abs=1e-4)


def test_a_sum_of_one_sign_is_certain() -> None:
    values = np.array([[1.0, 2.0], [-1.0, -2.0], [-5.0, 1.0]])
    counts = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])  # a kind of which there are none is not there
    assert negative_chance(values, counts).tolist() == [0.0, 1.0, 0.0]


def test_bounds_and_chances_agree_and_mirror() -> None:
    sample = sample_of(paired("facts", 440, lost=20, gained=40, cluster_size=4).totals())
    found = bounds(sample, 0.02, 0.01)
    assert float(chance_below(sample, found.lower)) == pytest.approx(0.02)
    assert float(chance_above(sample, found.upper)) == pytest.approx(0.01)
    mirrored = bounds(sample_of(paired("facts", 440, lost=40, gained=20, cluster_size=4).totals()), 0.01, 0.02)
    assert found.lower < 4.0 < found.upper
    turned = bounds(Sample(-sample.differences, sample.sizes, sample.counts), 0.01, 0.02)
    assert (turned.lower, turned.upper) == pytest.approx((-found.upper, -found.lower))
    assert mirrored.lower < -4.0 < mirrored.upper


def test_many_items_come_to_the_usual_bound() -> None:
    """A tenth of 4,000 items changes: the standard error is 0.5 points."""
    found = bounds(sample_of(paired("facts", 3600, lost=200, gained=200).totals()), 0.05, 0.05)
    assert found.lower == pytest.approx(-1.645 * 0.5, abs=0.06)


def test_items_of_one_cluster_are_no_evidence_of_their_own() -> None:
    apart = lower(paired("facts", 380, lost=20), 0.05)
    together = lower(paired("facts", 380, lost=20, cluster_size=20), 0.05)
    assert together < apart - 5


def test_large_clusters_weigh_as_many_items_as_they_have() -> None:
    totals = Totals(np.array([-10.0] + [0.0] * 90), np.array([10.0] + [1.0] * 90))
    found = bounds(sample_of(totals), 0.05, 0.05)
    assert found.lower < -10 < found.upper
    assert found.lower < -25


def test_the_cluster_that_was_not_seen_is_as_large_as_that_of_an_item() -> None:
    """Of 90 clusters of 1 and 90 of 9 items, an item's has 8.2 on average; one of the mean size, 5, would let too many pass."""
    even = bounds(sample_of(Totals(np.zeros(180), np.full(180, 5.0))), 0.05, 0.05)
    uneven = bounds(sample_of(Totals(np.zeros(180), np.repeat([1.0, 9.0], 90))), 0.05, 0.05)
    assert even.lower == pytest.approx(-100 * (1 - 0.05 ** (1 / 180)), rel=0.02)
    assert uneven.lower == pytest.approx(even.lower * 8.2 / 5, rel=0.05)


def test_what_other_clusters_may_gain_bounds_from_above() -> None:
    lost = sample_of(of_clusters("facts", [-0.3, -0.2, -0.4, -0.3], 50).totals())
    supposed, plain = bounds(lost, 0.05, 0.05, best=float(best_seen(lost))), bounds(lost, 0.05, 0.05)
    assert (float(best_seen(lost)), supposed.lower) == (0.0, plain.lower)
    assert -30 < supposed.upper < -5 < plain.upper
    gained = sample_of(of_clusters("facts", [-0.3, 0.25, -0.4, -0.3], 50).totals())
    assert float(best_seen(gained)) == pytest.approx(0.25)
