import math
from fractions import Fraction

import pytest

from benchmarks.statistics.student import incomplete_beta, t_cdf, t_quantile


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),
    [
        (0.975, 1, 12.706204736174694),
        (0.975, 2, 4.302652729749462),
        (0.975, 10, 2.2281388519649385),
        (0.995, 5, 4.032142983555228),
        (0.95, 30, 1.6972608865939574),
        (0.975, 1000, 1.9623390808264078),
    ],
)
def test_quantiles_are_the_tabulated_ones(p: float, degrees: float, expected: float):
    assert t_quantile(p, degrees) == pytest.approx(expected, rel=1e-9)
    assert t_quantile(1 - p, degrees) == pytest.approx(-expected, rel=1e-9)
    assert t_cdf(expected, degrees) == pytest.approx(p, rel=1e-9)


def test_many_degrees_are_the_normal_distribution():
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959963984540054)


def test_incomplete_beta_is_an_exact_binomial_sum():
    for num, most in ((10, 0), (10, 3), (60, 30), (200, 7), (200, 199)):
        p = Fraction(9, 10)
        exact = sum(math.comb(num, x) * p ** (num - x) * (1 - p) ** x for x in range(most + 1))
        assert incomplete_beta(num - most, most + 1, 0.9) == pytest.approx(float(exact), rel=1e-10)


@pytest.mark.parametrize("arguments", [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_outside_of_the_domain(arguments: tuple[float, float]):
    with pytest.raises(ValueError, match="outside of the domain"):
        t_quantile(*arguments)


def test_beta_outside_of_the_domain():
    with pytest.raises(ValueError, match="outside of the domain"):
        incomplete_beta(1, 1, 1.5)


@pytest.mark.parametrize("p", [0.75, 0.9, 0.95, 0.975, 0.995])
@pytest.mark.parametrize("degrees", [300.5, 1000.0, 5482.0, 1e5])
def test_the_series_of_many_degrees_is_the_quantile(p: float, degrees: float):
    assert t_cdf(t_quantile(p, degrees), degrees) == pytest.approx(p, abs=1e-10)


def test_it_converges_where_rounding_never_ends():
    """Close to the edge of fast convergence, for parameters that are far apart."""
    assert incomplete_beta(2741, 0.5, 0.9993) == pytest.approx(1 - incomplete_beta(0.5, 2741, 1 - 0.9993), abs=1e-11)
