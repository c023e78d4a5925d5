"""Numbers of tokens, drawn: fixed, uniform, lognormal."""

import math
import random
from dataclasses import dataclass
from typing import Protocol

from benchmarks.traffic.errors import WorkloadError

_FORMS = (
    "write 128, 64-256 for a uniform draw, or lognormal:550,0.8 by mean and sigma (cv=0.9 instead; limits: ,16-4096)"
)
_UPPER_Z = 3.719
"""Standard normal quantile of 0.9999: where a lognormal draw is cut unless limits are given."""


class LengthDraw(Protocol):
    """Draws numbers of tokens, all between `low` and `high`. `str` of it is the form that `parse` reads."""

    @property
    def low(self) -> int:
        """Smallest possible draw, at least 1."""

    @property
    def high(self) -> int:
        """Largest possible draw."""

    def draw(self, rng: random.Random) -> int:
        """One length."""


@dataclass(frozen=True, slots=True)
class Length:
    """A number of tokens, uniform between both ends, which may be equal."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> "Length":
        """`128` or `64-256`; raises WorkloadError."""
        low, dash, high = text.partition("-")
        try:
            length = cls(int(low), int(high if dash else low))
        except ValueError as exc:
            raise WorkloadError(f"{text!r} is no length: {_FORMS}") from exc
        if not 1 <= length.low <= length.high:
            raise WorkloadError(f"{text!r} is no length: it must be at least 1 and must not fall")
        return length

    def draw(self, rng: random.Random) -> int:
        """One length."""
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True, slots=True)
class LognormalLength:
    """Lognormal with this mean (of the lengths, not of their logarithms), rounded; draws beyond a limit become the limit."""

    mean: float
    sigma: float
    """Standard deviation of the logarithm; that of the lengths over their mean is sqrt(exp(sigma^2) - 1)."""
    low: int
    high: int

    @classmethod
    def of(cls, mean: float, sigma: float, limits: Length | None = None) -> "LognormalLength":
        """Without limits: from 1 to the 99.99 % quantile. Raises WorkloadError."""
        if not (1 <= mean < math.inf and 0 <= sigma < 10):
            raise WorkloadError(
                f"lognormal:{mean:g},{sigma:g} is no length: the mean must be at least 1, sigma 0 to 10"
            )
        if limits is None:
            limits = Length(1, math.ceil(mean * math.exp(_UPPER_Z * sigma - sigma**2 / 2)))
        return cls(mean, sigma, limits.low, limits.high)

    @classmethod
    def parse(cls, text: str) -> "LognormalLength":
        """`lognormal:550,0.8`, `lognormal:550,cv=0.9,16-4096`; raises WorkloadError."""
        words = text.removeprefix("lognormal:").split(",")
        try:
            mean, spread = words[0], words[1].strip()
            limits = Length.parse(words[2].strip()) if len(words) > 2 else None
            if len(words) > 3:
                raise ValueError(words[3])
            if spread.startswith("cv="):
                return cls.of(float(mean), math.sqrt(math.log1p(float(spread.removeprefix("cv=")) ** 2)), limits)
            return cls.of(float(mean), float(spread), limits)
        except WorkloadError:
            raise
        except (ValueError, IndexError, OverflowError) as exc:
            raise WorkloadError(f"{text!r} is no length: {_FORMS}") from exc

    def draw(self, rng: random.Random) -> int:
        """One length."""
        drawn = rng.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)
        return min(max(round(drawn), self.low), self.high)

    def __str__(self) -> str:
        return f"lognormal:{self.mean:g},{self.sigma:g},{self.low}-{self.high}"


def parse_length(text: str) -> LengthDraw:
    """Any of the forms; raises WorkloadError."""
    return LognormalLength.parse(text) if text.startswith("lognormal:") else Length.parse(text)
