"""Think time: how long a user waits between an answer and the next request."""

import math
import random
from dataclasses import dataclass

from benchmarks.traffic.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds: fixed, or exponentially distributed around the mean."""

    mean_s: float = 0.0
    is_exponential: bool = False

    @classmethod
    def parse(cls, text: str) -> "Pause":
        """`2` or `exp:2`, seconds; raises WorkloadError."""
        is_exponential = text.startswith("exp:")
        try:
            mean_s = float(text.removeprefix("exp:"))
        except ValueError:
            mean_s = -1.0
        if not 0 <= mean_s < math.inf:
            raise WorkloadError(
                f"{text!r} is no think time: write 2 for two seconds, exp:2 for exponential ones of that mean"
            )
        return cls(mean_s, is_exponential)

    def draw(self, rng: random.Random) -> float:
        """One pause, seconds."""
        return rng.expovariate(1 / self.mean_s) if self.is_exponential and self.mean_s else self.mean_s

    def __str__(self) -> str:
        return f"exp:{self.mean_s:g}" if self.is_exponential else f"{self.mean_s:g}"
