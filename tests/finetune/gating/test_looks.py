"""The levels of the looks err together as often as they may."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from finetune.gating.looks import LAST, LOOKS, level, levels


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 13])
def test_four_looks_err_as_often_as_one_may(alpha: float) -> None:
    rng = np.random.default_rng(5)
    steps = np.diff([0, *LOOKS])
    num = 1_000_000
    sums = np.cumsum(rng.standard_normal((num, len(LOOKS))) * np.sqrt(steps), axis=1)
    bounds = np.array([NormalDist().inv_cdf(1 - one) for one in levels(alpha)])
    crossed = sums / np.sqrt(LOOKS) > bounds
    spent = [crossed[:, : look + 1].any(axis=1).mean() for look in range(len(LOOKS))]
    wanted = [alpha * items / LOOKS[-1] for items in LOOKS]
    assert spent == pytest.approx(wanted, rel=0.02, abs=3 * (alpha / num) ** 0.5)


def test_the_first_look_has_its_share_and_later_ones_more() -> None:
    assert level(0.05, 0) == pytest.approx(0.05 / 8, rel=1e-3)
    assert list(levels(0.05)) == sorted(levels(0.05))
    assert level(0.05, LAST) < 0.05


def test_one_look_has_all() -> None:
    assert levels(0.05, (500,)) == pytest.approx((0.05,), rel=1e-3)
