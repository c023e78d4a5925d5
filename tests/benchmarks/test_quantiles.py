"""Distributions as curves."""

from __future__ import annotations

from benchmarks.quantiles import SHARES, curve


def test_a_curve_has_samples_only_and_never_falls() -> None:
    found = curve([3.0, 1.0, 2.0])
    assert len(found) == len(SHARES)
    assert set(found) == {1.0, 2.0, 3.0}
    assert list(found) == sorted(found)
    assert (found[0], found[-1]) == (1.0, 3.0)


def test_of_a_thousand_the_median_has_half_below() -> None:
    found = dict(zip(SHARES, curve([float(value) for value in range(1000)]), strict=True))
    assert (found[0.5], found[0.99], found[0.999], found[1.0]) == (500.0, 990.0, 999.0, 999.0)


def test_nothing_gives_nothing() -> None:
    assert curve([]) == ()
