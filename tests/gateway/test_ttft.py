from __future__ import annotations

import random
import statistics
from collections import Counter

import pytest

from gateway.ttft import bucket_of, median_s


@pytest.mark.parametrize("scale_ms", [2.0, 40.0, 900.0, 60_000.0])
def test_the_median_is_right_within_a_few_per_cent(scale_ms: float) -> None:
    dice = random.Random(3)
    times = [scale_ms * dice.lognormvariate(0, 0.5) for _ in range(400)]
    found = median_s(Counter(map(bucket_of, times)))
    assert found is not None
    assert found * 1000 == pytest.approx(statistics.median(times), rel=0.06)


def test_edges() -> None:
    assert median_s({}) is None
    assert [bucket_of(ms) for ms in (0.0, 0.5, 1.0, 1.19, 2.0, 4.0)] == [0, 0, 0, 1, 4, 8]
    assert median_s({8: 1}) == pytest.approx(0.00436, rel=0.01)
    assert median_s({0: 10, 40: 10}) == pytest.approx(0.00119, rel=0.01)
