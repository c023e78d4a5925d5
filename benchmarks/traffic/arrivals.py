"""When requests of an open loop are due, in seconds after its start.

A point process of rate 1 (its shape) is stretched by the rate over time (its profile): point u is due when the rate's
integral reaches u. So a ramp of any shape keeps that shape's burstiness, measured in its own local rate.
"""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from benchmarks.traffic.errors import WorkloadError

MAX_ARRIVALS = 10_000_000


class Profile(Protocol):
    """A rate over time."""

    @property
    def mean_rate(self) -> float:
        """Requests per second over its length, or for ever."""

    def due_s(self, point: float) -> float:
        """When the rate's integral reaches `point`."""

    def as_dict(self) -> dict[str, object]:
        """For result files."""


@dataclass(frozen=True, slots=True)
class Steady:
    """The same rate, requests per second, for ever."""

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    @property
    def mean_rate(self) -> float:
        return self.rate

    def due_s(self, point: float) -> float:
        return point / self.rate

    def as_dict(self) -> dict[str, object]:
        return {"profile": "steady", "rate": self.rate}


@dataclass(frozen=True, slots=True)
class LinearRamp:
    """From the first rate to the last over `length_s`, then on at the last."""

    first: float
    last: float
    length_s: float

    def __post_init__(self) -> None:
        _check_ramp(self.first, self.last, self.length_s)

    @property
    def mean_rate(self) -> float:
        return (self.first + self.last) / 2

    def due_s(self, point: float) -> float:
        at_end = self.mean_rate * self.length_s
        if point >= at_end:
            return self.length_s + (point - at_end) / self.last
        slope = (self.last - self.first) / self.length_s
        # first t + slope t^2 / 2 = point, solved in the form that does not cancel and holds for slope 0.
        return 2 * point / (self.first + math.sqrt(self.first**2 + 2 * slope * point))

    def as_dict(self) -> dict[str, object]:
        return {"profile": "linear", "first": self.first, "last": self.last, "length_s": self.length_s}


@dataclass(frozen=True, slots=True)
class ExponentialRamp:
    """As LinearRamp, but the rate grows by the same factor in every second."""

    first: float
    last: float
    length_s: float

    def __post_init__(self) -> None:
        _check_ramp(self.first, self.last, self.length_s)

    @property
    def mean_rate(self) -> float:
        return self.first if self.first == self.last else (self.last - self.first) / math.log(self.last / self.first)

    def due_s(self, point: float) -> float:
        at_end = self.mean_rate * self.length_s
        if point >= at_end:
            return self.length_s + (point - at_end) / self.last
        growth = math.log(self.last / self.first) / self.length_s
        return math.log1p(point * growth / self.first) / growth if growth else point / self.first

    def as_dict(self) -> dict[str, object]:
        return {"profile": "exponential", "first": self.first, "last": self.last, "length_s": self.length_s}


class Shape(StrEnum):
    """How arrivals scatter around their rate."""

    CONSTANT = "constant"
    """Evenly spaced, the first at once."""
    GAMMA = "gamma"
    """Gaps are drawn from a gamma distribution."""


@dataclass(frozen=True, slots=True)
class Spacing:
    """A point process of rate 1. `burstiness` is the gamma distribution's shape, as vLLM's option of that name: 1 makes
    it Poisson, less makes it burstier (the gaps' coefficient of variation is burstiness ** -0.5). Unlike vLLM's, gaps
    are not rescaled to end on time: that would change the process.
    """

    shape: Shape = Shape.GAMMA
    burstiness: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Spacing":
        """`constant`, `poisson` or `gamma:B`; raises WorkloadError."""
        if text == "constant":
            return cls(Shape.CONSTANT)
        if text == "poisson":
            return cls()
        kind, _, number = text.partition(":")
        try:
            burstiness = float(number)
        except ValueError:
            burstiness = 0.0
        if kind != "gamma" or not 0 < burstiness < math.inf:
            raise WorkloadError(
                f"{text!r} is no kind of arrivals: write constant, poisson, or gamma:0.5 with a burstiness"
            )
        return cls(Shape.GAMMA, burstiness)

    def points(self, rng: random.Random) -> Iterator[float]:
        """Ascending, without end."""
        if self.shape is Shape.CONSTANT:
            yield from map(float, itertools.count())
        point = 0.0
        while True:
            point += rng.gammavariate(self.burstiness, 1 / self.burstiness)
            yield point

    def __str__(self) -> str:
        if self.shape is Shape.CONSTANT:
            return "constant"
        return "poisson" if self.burstiness == 1 else f"gamma:{self.burstiness:g}"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Due times of an open loop."""

    profile: Profile
    spacing: Spacing = Spacing()

    def first(self, num: int, rng: random.Random) -> list[float]:
        """The first `num`, ascending, seconds after the start."""
        return [self.profile.due_s(point) for point in itertools.islice(self.spacing.points(rng), num)]

    def until(self, end_s: float, rng: random.Random) -> list[float]:
        """All that come before `end_s`. Raises WorkloadError where that is more than memory should hold."""
        if end_s * self.profile.mean_rate > MAX_ARRIVALS:
            raise WorkloadError(
                f"{end_s:g} s at {self.profile.mean_rate:g} requests/s is more than {MAX_ARRIVALS:,} requests"
            )
        due = map(self.profile.due_s, self.spacing.points(rng))
        return list(itertools.takewhile(lambda due_s: due_s < end_s, due))


def parse_ramp(text: str, length_s: float) -> Profile:
    """`linear:1-50` or `exponential:1-50`, requests per second, over `length_s`; raises WorkloadError."""
    kind, _, rates = text.partition(":")
    first, _, last = rates.partition("-")
    ramps: dict[str, type[LinearRamp | ExponentialRamp]] = {"linear": LinearRamp, "exponential": ExponentialRamp}
    try:
        return ramps[kind](float(first), float(last), length_s)
    except (KeyError, ValueError) as exc:
        if isinstance(exc, WorkloadError):
            raise
        raise WorkloadError(f"{text!r} is no ramp: write linear:1-50 or exponential:1-50, requests per second") from exc


def _check_ramp(first: float, last: float, length_s: float) -> None:
    _check_rate(first)
    _check_rate(last)
    if not 0 < length_s < math.inf:
        raise WorkloadError(f"a ramp must last longer than 0 s, not {length_s:g} s")


def _check_rate(rate: float) -> None:
    if not 0 < rate < math.inf:
        raise WorkloadError(f"a rate must be above 0 requests per second, not {rate:g}")
