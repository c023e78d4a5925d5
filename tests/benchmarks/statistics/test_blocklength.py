import math
import random

import pytest

from benchmarks.statistics.blocklength import block_length
from benchmarks.statistics.coverage import Autoregressive


def median_length(phi: float, num: int) -> int:
    rng = random.Random(3)
    return sorted(block_length(Autoregressive(phi).series(num, rng)).length for _ in range(25))[12]


def test_length_of_an_autoregressive_series_is_the_asymptotic_one():
    num, phi = 4000, 0.5
    # For AR(1): g = 1 / (1 - phi)^2 and G = 2 phi / ((1 - phi^2) (1 - phi)^2), in units of the noise's variance.
    slope_over_variance = 2 * phi / (1 - phi**2)
    expected = (1.5 * slope_over_variance**2 * num) ** (1 / 3)
    assert median_length(phi, num) == pytest.approx(expected, rel=0.2)


def test_the_more_alike_neighbours_are_the_longer():
    assert median_length(0.0, 1000) < median_length(0.5, 1000) < median_length(0.9, 1000)


def test_long_run_variance_is_that_of_the_mean():
    phi, spread = 0.6, 0.25
    rng = random.Random(4)
    found = [block_length(Autoregressive(phi, spread=spread).series(4000, rng)).long_run_variance for _ in range(25)]
    assert math.fsum(found) / 25 == pytest.approx(spread**2 * (1 + phi) / (1 - phi), rel=0.1)


@pytest.mark.parametrize("series", [[], [1.0], [2.0, 2.0, 2.0], [0.1 + 1e6] * 400])
def test_nothing_to_correlate(series: list[float]):
    assert block_length(series) == (block_length([]))


def test_alternating_samples_have_no_blocks():
    assert block_length([1.0, 2.0] * 200).length >= 1


def test_never_longer_than_a_third():
    assert block_length([float(i) for i in range(30)]).length <= 10


def test_it_is_the_formula_written_out():
    series = Autoregressive(0.7).series(400, random.Random(5))
    num, mean = len(series), math.fsum(series) / len(series)

    def covariance(lag: int) -> float:
        return math.fsum((series[i] - mean) * (series[i + abs(lag)] - mean) for i in range(num - abs(lag))) / num

    limit = 2 * math.sqrt(math.log10(num) / num)
    last_significant = next(
        lag for lag in range(1, 40) if all(abs(covariance(lag + k) / covariance(0)) < limit for k in range(1, 6))
    )
    bandwidth = 2 * last_significant
    window = {lag: min(1.0, 2 * (1 - abs(lag) / bandwidth)) for lag in range(-bandwidth, bandwidth + 1)}
    g = sum(weight * covariance(lag) for lag, weight in window.items())
    slope = sum(weight * abs(lag) * covariance(lag) for lag, weight in window.items())
    found = block_length(series)
    assert found.long_run_variance == pytest.approx(g)
    assert found.length == math.ceil((2 * slope**2 / (4 / 3 * g**2) * num) ** (1 / 3))
