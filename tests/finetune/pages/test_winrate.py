"""The win rate's interval: against published values, and by simulation where votes belong together."""

from __future__ import annotations

from random import Random

import pytest

from finetune.pages.winrate import exact_interval, incomplete_beta, sign_test, win_rate


@pytest.mark.parametrize(
    ("wins", "total", "lower", "upper"),
    [  # Clopper and Pearson, as R's binom.test gives them
        (8, 10, 0.4439045, 0.9747893),
        (0, 10, 0.0, 0.3084971),
        (10, 10, 0.6915029, 1.0),
        (1, 2, 0.01257912, 0.98742088),
        (550, 1000, 0.5185480, 0.5811483),
    ],
)
def test_the_exact_interval(wins: int, total: int, lower: float, upper: float) -> None:
    assert exact_interval(wins, total) == pytest.approx((lower, upper), abs=1e-4)


def test_the_incomplete_beta_function() -> None:
    assert incomplete_beta(2, 3, 0.4) == pytest.approx(0.5248, abs=1e-9)  # 1 - sum of binomial terms, by hand
    assert incomplete_beta(0.5, 0.5, 0.5) == pytest.approx(0.5)
    assert incomplete_beta(5000, 5000, 0.5) == pytest.approx(0.5, abs=1e-9)
    assert (incomplete_beta(2, 3, 0), incomplete_beta(2, 3, 1)) == (0, 1)


def test_the_sign_test() -> None:
    assert sign_test(8, 2) == pytest.approx(0.109375)
    assert sign_test(5, 5) == 1
    assert sign_test(0, 3) == 0.25
    assert 0 <= sign_test(5000, 100) < 1e-300


def test_ties_are_shown_and_decide_nothing() -> None:
    found = win_rate([("a", True), ("b", False), ("c", None), ("d", True), ("a", None)])
    assert (found.num_wins, found.num_losses, found.num_ties, found.num_clusters) == (2, 1, 2, 3)
    assert found.rate == pytest.approx(2 / 3)
    assert found.p_value == 1
    nothing = win_rate([("a", None)])
    assert (nothing.rate, nothing.lower, nothing.p_value, nothing.num_ties) == (None, None, None, 1)


def test_votes_of_one_cluster_tell_less() -> None:
    apart = win_rate((f"c{n}", n % 4 > 0) for n in range(40))
    together = win_rate((f"c{n % 4}", n % 4 > 0) for n in range(40))
    assert apart.rate == together.rate == 0.75
    assert apart.lower is not None
    assert together.lower is not None
    assert together.lower < apart.lower - 0.2
    assert together.p_value is None
    alike = win_rate([("a", True), ("a", True), ("b", True)])
    assert (alike.rate, alike.upper) == (1, 1)
    assert alike.lower == pytest.approx(exact_interval(2, 2)[0])
    alone = win_rate([("a", True), ("a", False)])
    assert alone.lower == pytest.approx(exact_interval(0.5, 1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.7])
def test_the_interval_covers(icc: float) -> None:
    """40 prompts of 3 votes each, alike to a degree: of 200 intervals at least 92 % have the true rate."""
    draw, rate, covered = Random(7), 0.65, 0
    for _ in range(200):
        votes = []
        for prompt in range(40):
            shared = draw.random() < rate
            votes += [(str(prompt), shared if draw.random() < icc else draw.random() < rate) for _ in range(3)]
        found = win_rate(votes)
        assert found.lower is not None
        assert found.upper is not None
        covered += found.lower <= rate <= found.upper
    assert covered / 200 >= 0.92
