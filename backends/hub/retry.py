"""How often, and after how long, what failed is tried again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling delays; `max_failures` in a row without headway, then it is given up."""

    max_failures: int
    first_s: float = 1.0
    longest_s: float = 30.0
    longest_asked_s: float = 300.0
    """The most that a server's `retry-after` is obeyed."""

    def delay_s(self, num_failures: int, retry_after_s: float | None, draw: Callable[[], float]) -> float | None:
        """After the `num_failures`th failure in a row (from 1); None: give up. `draw` in [0, 1) spreads clients that failed together."""
        if num_failures >= self.max_failures:
            return None
        own = min(self.longest_s, self.first_s * 2.0 ** (num_failures - 1)) * (0.5 + draw() / 2)
        return max(own, min(retry_after_s, self.longest_asked_s)) if retry_after_s is not None else own
