"""A result as every tool has it: loads, and at each some figures with the intervals that its file allows. Values only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.statistics import bootstrap
from benchmarks.statistics.bootstrap import LEVEL
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.student import t_quantile

MIN_REPEATS = 3
ALL_AT_ONCE = "all at once"


class ForeignError(ValueError):
    """The document cannot be read as what it says it is; the message says why."""


@dataclass(frozen=True, slots=True)
class MeasuredLoad:
    """All repeats of one load."""

    name: str
    """`8 streams`, `4 requests/s`, `all at once`."""
    figures: Mapping[str, Interval]
    """`output_tps` and `request_rate` per second; `mean`, `p50` and `p99` of latencies in seconds, as `ttft_s.p99`. Open to both
    sides where the file holds nothing to make an interval of."""
    num_requests: int = 0
    num_failed: int = 0
    input_tokens: float | None = None
    """Of an answered request, mean."""
    output_tokens: float | None = None
    num_repeats: int = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One result file."""

    tool: str
    """A key of `definitions.TOOLS`."""
    model: str
    loads: tuple[MeasuredLoad, ...]
    version: str = ""
    """Of the tool, where its file tells."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know about this file."""


def streams(num: int) -> str:
    """The name of a closed loop's load."""
    return "1 stream" if num == 1 else f"{num} streams"


def rate(per_s: float) -> str:
    """The name of an open loop's load."""
    return f"{per_s:g} requests/s"


def known(estimate: float, num_samples: int = 1) -> Interval:
    """A figure about whose spread nothing is known."""
    return Interval(estimate, None, None, LEVEL, num_samples, 1, float(num_samples))


def between(values: Sequence[float], estimate: float | None = None) -> Interval:
    """A figure by what it was in each repeat: Student's t from three of them on, open below. `estimate`: in place of their mean."""
    num = len(values)
    centre = statistics.fmean(values) if estimate is None else estimate
    if num < MIN_REPEATS:
        return known(centre, num)
    margin = t_quantile((1 + LEVEL) / 2, num - 1) * statistics.stdev(values) / math.sqrt(num)
    return Interval(centre, centre - margin, centre + margin, LEVEL, num, num, float(num), True)


def sampled(samples: Sequence[float]) -> dict[str, Interval]:
    """`mean`, `p50` and `p99` of one run's requests, in the order in which they were sent; what they are too few for is left out."""
    if not samples:
        return {}
    found = {"mean": bootstrap.mean([samples])}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        if interval := bootstrap.percentile([samples], share):
            found[name] = interval
    return found
