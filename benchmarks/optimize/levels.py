"""How much load an engine carries: streams, or requests per second, doubled and then bisected within one launch."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.loads import ClosedLoad, Load, OpenLoad
from benchmarks.traffic.arrivals import Arrivals, Spacing, Steady

CLOSE = 1.2
"""Two neighbouring loads whose ratio is no larger are not told apart."""
PLATEAU = 1.03
"""Twice the load that answers no more than this times as much is past the knee: more only makes it wait."""
_ROUNDS = 2
_SECONDS = 5.0
_ANSWERS = 8


class Axis(Protocol):
    """Along which the load is raised."""

    @property
    def name(self) -> str:
        """`concurrency` or `rate`."""

    @property
    def start(self) -> float:
        """Where nothing is known yet."""

    @property
    def highest(self) -> float:
        """That is tried."""

    def up(self, at: float) -> float | None:
        """None at the top."""

    def down(self, at: float) -> float | None:
        """None at the bottom."""

    def between(self, low: float, high: float) -> float | None:
        """None where they are close enough."""

    def load(self, at: float, effort: int, num_requests: int, e2e_s: float) -> Load:
        """`num_requests` is the least that effort 1 sends; `e2e_s` how long an answer takes, about."""

    def label(self, at: float) -> str:
        """For people."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Users who each wait for their answer."""

    highest: int = 256

    @property
    def name(self) -> str:
        return "concurrency"

    @property
    def start(self) -> float:
        return min(8, self.highest)

    def up(self, at: float) -> float | None:
        return min(2 * at, self.highest) if at < self.highest else None

    def down(self, at: float) -> float | None:
        return at // 2 if at > 1 else None

    def between(self, low: float, high: float) -> float | None:
        middle = round(math.sqrt(low * high))
        return middle if low < middle < high and high / low > CLOSE else None

    def load(self, at: float, effort: int, num_requests: int, e2e_s: float) -> Load:
        return ClosedLoad(int(at), effort * max(num_requests, _ROUNDS * int(at)))

    def label(self, at: float) -> str:
        return f"{at:g} stream{'' if at == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests come at random, whatever the engine does. An open loop must last some answers long to be believed."""

    highest: float = 1024.0
    lowest: float = 1 / 64

    @property
    def name(self) -> str:
        return "rate"

    @property
    def start(self) -> float:
        return min(1.0, self.highest)

    def up(self, at: float) -> float | None:
        return min(2 * at, self.highest) if at < self.highest else None

    def down(self, at: float) -> float | None:
        return at / 2 if at / 2 >= self.lowest else None

    def between(self, low: float, high: float) -> float | None:
        return math.sqrt(low * high) if high / low > CLOSE else None

    def load(self, at: float, effort: int, num_requests: int, e2e_s: float) -> Load:
        duration_s = effort * max(_SECONDS, _ANSWERS * e2e_s, num_requests / at)
        return OpenLoad(Arrivals(Steady(at), Spacing()), num_requests=max(num_requests, math.ceil(duration_s * at)))

    def label(self, at: float) -> str:
        return f"{at:.3g} req/s"


async def climb(axis: Axis, start: float, carried: Callable[[float], Awaitable[float | None]]) -> float | None:
    """The highest load that is carried, about; None where none is. `carried` measures one load and says how many requests a
    second were answered well, or None where the promise was not held.
    """
    low: float | None = None
    high: float | None = None
    best = 0.0
    at: float | None = start
    while at is not None:
        found = await carried(at)
        if found is None:
            high = at
            at = axis.down(at) if low is None else axis.between(low, high)
            continue
        is_plateau = low is not None and found < PLATEAU * best
        low, best = at, max(best, found)
        if is_plateau:
            break
        at = axis.up(at) if high is None else axis.between(low, high)
    return low
