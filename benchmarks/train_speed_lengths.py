"""Lengths of rows as support conversations have them: many short ones, a few long ones. Pure."""

from __future__ import annotations

import math
from random import Random


def draw(count: int, mean: float, spread: float, low: int, high: int, seed: int) -> list[int]:
    """Lognormal lengths, `spread` the standard deviation of their logarithm, bounded; their mean is `mean` within a token.

    Raises ValueError where no such mean lies between the bounds.
    """
    if not low < mean < high:
        raise ValueError(f"a mean of {mean:g} tokens does not lie between {low} and {high}")
    random = Random(seed)
    factors = [math.exp(random.gauss(0, spread)) for _ in range(count)]
    lower, upper = 0.0, 64.0 * high / min(factors)
    for _ in range(80):
        scale = (lower + upper) / 2
        if _mean(factors, scale, low, high) < mean:
            lower = scale
        else:
            upper = scale
    return [_bounded(factor * upper, low, high) for factor in factors]


def context(lengths: list[int]) -> float:
    """Tokens that a token sees on average, itself among them."""
    return sum(length * (length + 1) for length in lengths) / (2 * sum(lengths))


def facts(lengths: list[int]) -> dict[str, float]:
    ordered = sorted(lengths)
    return {
        "num_rows": len(ordered), "num_tokens": sum(ordered), "mean": round(sum(ordered) / len(ordered), 2), "min": ordered[0],
        "median": ordered[len(ordered) // 2], "p95": ordered[int(len(ordered) * 0.95)], "max": ordered[-1],
        "context": round(context(ordered), 2),
    }  # fmt: skip


def _mean(factors: list[float], scale: float, low: int, high: int) -> float:
    return sum(_bounded(factor * scale, low, high) for factor in factors) / len(factors)


def _bounded(length: float, low: int, high: int) -> int:
    return min(max(round(length), low), high)
