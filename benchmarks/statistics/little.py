"""Little's law as a cross-check of client and server: the requests in the engine must be as many as rate times latency
say.

    L = lambda * W     J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations Research 9 (1961)

L comes from the engine (its own gauge of running and waiting requests), lambda and W from the client. Where they
differ, one of them counts other requests than the other: somebody else's traffic, answers that the client counts and
the engine did not make (a cache in between), requests that wait where neither looks, or a clock that is wrong. Each
request counts by the part of its time that lies within the window, so that those which straddle an edge are not an
error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.statistics.steady import Window

ERROR_LIMIT = 0.05
MIN_LATENCIES = 20
"""Mean latencies that the window must hold: in a shorter one the edges weigh too much."""
MIN_GAUGES = 20
MAX_GAP_SHARE = 0.1
"""A hole in the gauge samples longer than this share of the window leaves L unknown."""


@dataclass(frozen=True, slots=True)
class LittleCheck:
    """Of one window."""

    num_in_engine: float | None
    """L by the gauge, time-weighted; None without enough samples."""
    rate: float
    """Requests sent per second: lambda."""
    latency_s: float | None
    """Time that the requests spent in the window, per request sent in it: W. None when none was sent."""
    num_in_flight: float
    """lambda * W."""
    error: float | None
    """|L - lambda * W| / L, 1 for an L of 0; None where it was not judged."""
    not_judged: str | None
    """Why not; None where it was."""
    limit: float = ERROR_LIMIT

    @property
    def is_fault(self) -> bool:
        """True when judged and found off."""
        return self.error is not None and self.error > self.limit


def little(
    gauges: Sequence[tuple[float, float]],
    requests: Sequence[tuple[float, float]],
    window: Window,
    limit: float = ERROR_LIMIT,
) -> LittleCheck:
    """`gauges`: (moment, running + waiting) in ascending order; `requests`: (sent, ended) of every request, answered or
    not. All in seconds of one clock.
    """
    in_flight = math.fsum(_overlap_s(request, window) for request in requests) / window.duration_s
    rate = sum(window.holds(sent) for sent, _ in requests) / window.duration_s
    latency_s = in_flight / rate if rate else None
    in_engine = time_weighted_mean(gauges, window)
    reason = _not_judged(in_engine, latency_s, window)
    if reason is not None or in_engine is None:
        return LittleCheck(in_engine, rate, latency_s, in_flight, None, reason, limit)
    error = abs(in_engine - in_flight) / in_engine if in_engine else 1.0
    return LittleCheck(in_engine, rate, latency_s, in_flight, error, None, limit)


def time_weighted_mean(gauges: Sequence[tuple[float, float]], window: Window) -> float | None:
    """Mean over the window of a gauge that was read now and then, linear between two readings. None with fewer than 20
    readings inside, or a hole of more than a tenth of it.
    """
    inside = [(at, value) for at, value in gauges if window.holds(at)]
    if len(inside) < MIN_GAUGES:
        return None
    points = [(window.start_s, inside[0][1]), *inside, (window.end_s, inside[-1][1])]
    if any(after - before > MAX_GAP_SHARE * window.duration_s for (before, _), (after, _) in pairwise(points)):
        return None
    areas = ((after - before) * (low + high) / 2 for (before, low), (after, high) in pairwise(points))
    return math.fsum(areas) / window.duration_s


def _overlap_s(request: tuple[float, float], window: Window) -> float:
    return max(0.0, min(request[1], window.end_s) - max(request[0], window.start_s))


def _not_judged(in_engine: float | None, latency_s: float | None, window: Window) -> str | None:
    if latency_s is None or latency_s <= 0:
        return "no request was sent in the window"
    if window.duration_s < MIN_LATENCIES * latency_s * (1 - 1e-9):
        held = window.duration_s / latency_s
        return f"the window holds {held:.1f} mean latencies, {MIN_LATENCIES} are needed: measure longer"
    if in_engine is None:
        return "the engine's gauge was not read often enough (20 readings, no hole above a tenth of the window)"
    return None
