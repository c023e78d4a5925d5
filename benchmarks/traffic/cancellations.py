"""Clients that leave before their answer is complete."""

import random
from dataclasses import dataclass

from benchmarks.traffic.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class Cancel:
    """When the client of one request leaves: after so many events of the stream, or so many seconds from the send."""

    after_events: int | None = None
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Cancellations:
    """`share` of all requests are left, each at the same point."""

    share: float
    cancel: Cancel

    @classmethod
    def parse(cls, share: float, text: str) -> "Cancellations":
        """`text` is `5` (events) or `0.5s`; raises WorkloadError."""
        try:
            after = Cancel(after_s=float(text[:-1])) if text.endswith("s") else Cancel(after_events=int(text))
        except ValueError as exc:
            raise WorkloadError(f"{text!r} is no point to cancel at: write 5 for events, 0.5s for seconds") from exc
        if (after.after_events or after.after_s or 0) <= 0:
            raise WorkloadError(f"{text!r} is no point to cancel at: it must be above 0")
        if not 0 <= share <= 1:
            raise WorkloadError(f"the share of cancelled requests must be between 0 and 1, not {share:g}")
        return cls(share, after)

    def draw(self, rng: random.Random) -> Cancel | None:
        """Whether, and when, a request's client leaves."""
        return self.cancel if rng.random() < self.share else None

    def __str__(self) -> str:
        after = self.cancel
        point = f"{after.after_events} events" if after.after_events is not None else f"{after.after_s:g} s"
        return f"{self.share:g} after {point}"
