"""Synthetic pairs of models differ by what they say."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.gating.settings import all_settings
from finetune.gating.synthetic import Skill, Stream

SKILLS = [
    Skill(0.9, -3, 0.5),
    Skill(0.9, -3, 0.5, is_graded=True),
    Skill(0.9, -3, 0.5, "new", 20, 0.5),
    Skill(0.9, -3, 0.5, "fixed", 50, 0.3),
    Skill(0.9, -3, 0.5, "uneven", 5, 0.3),
    Skill(1.0, -3, 0.0, "closed", 20),
]


@pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: f"{skill.layout}{skill.size}{'-graded' * skill.is_graded}")
def test_samples_have_the_difference_that_is_true_at_every_look(skill: Skill) -> None:
    stream = Stream(skill, 2000, np.random.default_rng(1))
    for num_items in (500, 1000):
        sample = stream.grow(num_items)
        items = (sample.sizes * sample.counts).sum(axis=1)
        assert items.mean() == pytest.approx(num_items, rel=0.01)
        means = 100 * (sample.differences * sample.counts).sum(axis=1).mean() / items.mean()
        assert means == pytest.approx(skill.difference, abs=0.35)


def test_likeness_is_the_correlation_of_the_scores() -> None:
    skill = Skill(0.7, -3, 0.6)
    lost, gained = skill.shares
    assert gained - lost == pytest.approx(-0.03)
    after = 0.67
    covariance = (0.7 - lost) - 0.7 * after
    assert covariance / (0.7 * 0.3 * after * 0.33) ** 0.5 == pytest.approx(0.6)
    assert Skill(0.95, 0, 1.0).shares == pytest.approx((0, 0))


def test_clusters_share_what_becomes_of_their_items() -> None:
    """Variance of a cluster's loss over that of independent items: 1 + (size - 1) * icc."""
    size, icc = 20, 0.4
    stream = Stream(Skill(1.0, -10, 0.0, "new", size, icc), 400, np.random.default_rng(2))
    sample = stream.grow(4000)
    second = (sample.differences**2 * sample.counts).sum() / sample.counts.sum()
    first = (sample.differences * sample.counts).sum() / sample.counts.sum()
    assert (second - first**2) / (size * 0.1 * 0.9) == pytest.approx(1 + (size - 1) * icc, rel=0.05)


def test_fixed_clusters_go_on_as_they_began() -> None:
    stream = Stream(Skill(1.0, -30, 0.0, "fixed", 10, 0.95), 300, np.random.default_rng(3))
    first = stream.grow(500).differences / 50
    second = (stream.grow(1000).differences - 50 * first) / 50
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.95


def test_settings_have_names_of_their_own_and_cover_both_truths() -> None:
    settings = list(all_settings())
    assert len({(one.group, one.name) for one in settings}) == len(settings)
    assert sum(not one.is_go for one in settings) > 60
    assert sum(one.is_go for one in settings) > 40
