"""Student's t distribution and the incomplete beta function below it, for margins of error and exact binomial tests."""

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_ROUNDING = 1e-13
"""Steps this small are rounding, of which there may be no end."""
_SERIES_FROM = 300.0
"""Degrees of freedom from which on four terms of the series are right to 1e-10."""
_SMALLEST = 1e-300
"""Stands for 0 where Lentz's method would divide by it."""


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), regularised, for a, b > 0 and 0 <= x <= 1: the continued fraction of DLMF 8.17.22, by Lentz's method."""
    if not 0 <= x <= 1 or a <= 0 or b <= 0:
        raise ValueError(f"outside of the domain: a={a}, b={b}, x={x}")
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    value, c, d = 1.0, 1.0, 0.0
    for i in range(1, 10_000):
        m = i // 2
        over = -(a + m) * (a + b + m) if i % 2 else m * (b - m)
        term = over * x / ((a + i - 1) * (a + i))
        d = 1 / (1 + term * d or _SMALLEST)
        c = 1 + term / c or _SMALLEST
        value *= c * d
        if abs(c * d - 1) < _ROUNDING:
            return value
    raise ArithmeticError(f"no convergence: a={a}, b={b}, x={x}")


def t_cdf(t: float, degrees: float) -> float:
    """P(T <= t); `degrees` of freedom need not be whole."""
    tail = incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=4096)
def t_quantile(p: float, degrees: float) -> float:
    """The t with P(T <= t) = p, for 0 < p < 1 and degrees > 0. Raises ValueError outside."""
    if not 0 < p < 1 or degrees <= 0:
        raise ValueError(f"outside of the domain: p={p}, degrees={degrees}")
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    if degrees > _SERIES_FROM:
        return _by_series(_NORMAL.inv_cdf(p), degrees)
    low, high = 0.0, 2.0
    while t_cdf(high, degrees) < p:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < p else (low, middle)
    return (low + high) / 2


def _by_series(z: float, degrees: float) -> float:
    """From the normal quantile (Abramowitz and Stegun, 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))
