"""An estimate with its interval: what every other part of this package hands around."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """In the unit of the estimate, covering the true value in `level` of all campaigns."""

    estimate: float
    low: float | None
    """None where the samples do not reach as far: open to this side."""
    high: float | None
    level: float
    num_samples: int
    num_repeats: int
    num_blocks: float
    """Samples divided by the block length: about as many independent observations are behind the estimate."""
    is_between_repeats: bool = False
    """True when the width comes from repeats that differ by more than their own noise: more repeats narrow it, longer
    ones do not.
    """

    @property
    def is_unknown(self) -> bool:
        """True when it is open to both sides: an estimate about whose spread nothing is known."""
        return self.low is None and self.high is None

    @property
    def relative_half_width(self) -> float:
        """The farther end's distance from the estimate, as a share of it; infinite for an open interval."""
        if self.low is None or self.high is None:
            return math.inf
        distance = max(self.high - self.estimate, self.estimate - self.low)
        if distance == 0:
            return 0.0
        return distance / abs(self.estimate) if self.estimate else math.inf

    def contains(self, value: float) -> bool:
        """True when `value` lies inside, the ends included."""
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)
