"""How requests reach the server: a closed loop of streams, an open loop at a rate, a trace, or a saved list."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from benchmarks.traffic.arrivals import Arrivals, Spacing, Steady
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.request import Request
from benchmarks.traffic.traces import Trace
from benchmarks.workload import Workload


class Load(Protocol):
    """One load of a campaign."""

    @property
    def concurrency(self) -> int:
        """Streams of a closed loop; 0 of an open one."""

    @property
    def rate(self) -> float | None:
        """Mean requests (or sessions) per second that an open loop offers; None of a closed one."""

    @property
    def label(self) -> str:
        """For people: `8 streams`, `20 req/s`."""

    @property
    def key(self) -> str:
        """Different for every load of a campaign; its request lists are drawn by it."""

    def requests(self, workload: Workload, seed: str) -> list[Request]:
        """The list of one run. Raises WorkloadError."""

    def expected_s(self, e2e_s: float) -> float:
        """How long one run takes, about, where a request takes `e2e_s`."""

    def as_dict(self) -> dict[str, Any]:
        """For result files."""


@dataclass(frozen=True, slots=True)
class ClosedLoad:
    """So many users, each of whom waits for the answer before they think and ask again."""

    concurrency: int
    num_requests: int

    @property
    def rate(self) -> None:
        return None

    @property
    def label(self) -> str:
        return _streams(self.concurrency)

    @property
    def key(self) -> str:
        return str(self.concurrency)

    def requests(self, workload: Workload, seed: str) -> list[Request]:
        return workload.requests(self.num_requests, seed)

    def expected_s(self, e2e_s: float) -> float:
        return math.ceil(self.num_requests / self.concurrency) * e2e_s

    def as_dict(self) -> dict[str, Any]:
        return {"loop": "closed", "concurrency": self.concurrency, "requests": self.num_requests}


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """Requests, or sessions of them, arrive by a schedule that knows nothing of the server. Of `num_requests` and
    `duration_s` one is given.
    """

    arrivals: Arrivals
    num_requests: int | None = None
    duration_s: float | None = None

    @property
    def concurrency(self) -> int:
        return 0

    @property
    def rate(self) -> float:
        return self.arrivals.profile.mean_rate

    @property
    def label(self) -> str:
        return f"{self.rate:.4g} req/s"

    @property
    def key(self) -> str:
        return f"open {self.arrivals.profile.as_dict()}"

    def requests(self, workload: Workload, seed: str) -> list[Request]:
        rng = random.Random(f"{seed}/arrivals")
        if self.duration_s is not None:
            times_s = self.arrivals.until(self.duration_s, rng)
            if not times_s:
                raise WorkloadError(f"no request is due within {self.duration_s:g} s at {self.label}: make it longer")
            return _due(workload.sessions(len(times_s), seed), times_s)
        requests = workload.requests(self.num_requests or 0, seed)
        return _due(requests, self.arrivals.first(sum(request.turn == 0 for request in requests), rng))

    def expected_s(self, e2e_s: float) -> float:
        return (self.duration_s if self.duration_s is not None else (self.num_requests or 0) / self.rate) + e2e_s

    def as_dict(self) -> dict[str, Any]:
        bound = {"requests": self.num_requests} if self.duration_s is None else {"duration_s": self.duration_s}
        return {"loop": "open", **self.arrivals.profile.as_dict(), "arrivals": str(self.arrivals.spacing), **bound}


@dataclass(frozen=True, slots=True)
class TraceLoad:
    """Recorded arrivals and lengths."""

    trace: Trace

    @property
    def concurrency(self) -> int:
        return 0

    @property
    def rate(self) -> float | None:
        return _mean_rate([row.due_s for row in self.trace.rows])

    @property
    def label(self) -> str:
        return self.trace.name

    @property
    def key(self) -> str:
        return f"trace {self.trace.name}"

    def requests(self, workload: Workload, seed: str) -> list[Request]:
        return workload.replay(self.trace, seed)

    def expected_s(self, e2e_s: float) -> float:
        return (self.trace.rows[-1].due_s if self.trace.rows else 0.0) + e2e_s

    def as_dict(self) -> dict[str, Any]:
        rows = self.trace.rows
        length_s = rows[-1].due_s if rows else 0.0
        left_out = {"left_out": self.trace.num_left_out} if self.trace.num_left_out else {}
        return {"loop": "open", "trace": self.trace.name, "requests": len(rows), "length_s": length_s, **left_out}


@dataclass(frozen=True, slots=True)
class SavedLoad:
    """A list that was saved, at its own times or, with streams, in a closed loop; the workload has no say."""

    name: str
    saved: tuple[Request, ...]
    concurrency: int = 0

    @property
    def rate(self) -> float | None:
        return None if self.concurrency else _mean_rate([each.due_s for each in self.saved if each.due_s is not None])

    @property
    def label(self) -> str:
        return _streams(self.concurrency) if self.concurrency else self.name

    @property
    def key(self) -> str:
        return f"saved {self.name} {self.concurrency}"

    def requests(self, workload: Workload, seed: str) -> list[Request]:
        return list(self.saved)

    def expected_s(self, e2e_s: float) -> float:
        if self.concurrency:
            return math.ceil(len(self.saved) / self.concurrency) * e2e_s
        return max((each.due_s for each in self.saved if each.due_s is not None), default=0.0) + e2e_s

    def as_dict(self) -> dict[str, Any]:
        loop = {"loop": "closed", "concurrency": self.concurrency} if self.concurrency else {"loop": "open"}
        return {**loop, "saved": self.name, "requests": len(self.saved)}


MIN_REQUESTS = 20
"""Fewer say too little about a rate; a slow one is offered for as long as it takes."""


def steady_load(rate: float, spacing: Spacing, duration_s: float) -> OpenLoad:
    """A rate for so long, or until twenty requests have come."""
    arrivals = Arrivals(Steady(rate), spacing)
    if rate * duration_s < MIN_REQUESTS:
        return OpenLoad(arrivals, num_requests=MIN_REQUESTS)
    return OpenLoad(arrivals, duration_s=duration_s)


def _streams(num: int) -> str:
    return "1 stream" if num == 1 else f"{num} streams"


def _mean_rate(times_s: Sequence[float]) -> float | None:
    span_s = max(times_s, default=0.0) - min(times_s, default=0.0)
    return len(times_s) / span_s if span_s > 0 else None


def _due(requests: Sequence[Request], times_s: Sequence[float]) -> list[Request]:
    """The first requests of sessions get the times, in order."""
    times = iter(times_s)
    return [request if request.turn else replace(request, due_s=next(times)) for request in requests]
