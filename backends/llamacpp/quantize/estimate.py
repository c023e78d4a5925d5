"""Perplexity with its interval, and ratios of paired measurements. Pure, standard library only.

A text is cut into windows of equal length, and the mean negative log-likelihood of each is one observation: tokens of one window are not
independent, windows nearly are. With n windows the mean is m and its standard error s / sqrt(n); perplexity is exp(m), and the interval is
exp(m +- t s / sqrt(n)) with Student's t of n - 1 degrees. Two files are compared by the differences of their windows: what makes a
window hard for one makes it hard for the other, so that this interval is far narrower than either file's own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from backends.adapter.proof_estimate import student_quantile

TAIL = 0.025
"""Of either side: 95 % lie within."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Without `low` and `high` where one observation is all there is."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def perplexity(window_losses: Sequence[float]) -> Interval:
    """Of the mean negative log-likelihood (nats per token) of each window."""
    return _exponential(window_losses)


def perplexity_ratio(window_losses: Sequence[float], reference: Sequence[float]) -> Interval:
    """This file's perplexity over the reference's, on the same windows."""
    return _exponential([ours - theirs for ours, theirs in zip(window_losses, reference, strict=True)])


def rate_ratio(rates: Sequence[float], reference: Sequence[float]) -> Interval:
    """Of two speeds measured in turn, round by round."""
    return _exponential([math.log(ours / theirs) for ours, theirs in zip(rates, reference, strict=True)])


def _exponential(observations: Sequence[float]) -> Interval:
    mean = math.fsum(observations) / len(observations)
    if len(observations) == 1:
        return Interval(math.exp(mean))
    error = statistics.stdev(observations) / math.sqrt(len(observations))
    half = student_quantile(TAIL, len(observations) - 1) * error
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
