"""Why a rate is more than a server carries. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.campaign import Level, MeasuredRun
from benchmarks.validity import ACHIEVED_LIMIT

FAILED_LIMIT = 0.05
"""Share of requests. A server that turns requests away has no queue that could grow."""


class Cause(StrEnum):
    """What showed it."""

    QUEUE = "queue"
    """Requests in flight and time to first token grew for as long as requests came."""
    UNSENT = "unsent"
    """Requests could not be sent in time."""
    FAILED = "failed"
    """Requests were turned away, or failed."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """A load that was too much."""

    level: Level
    cause: Cause
    because: str
    """In numbers, for people."""


def beyond_of(level: Level) -> Beyond | None:
    """By its worst repeat; None for a load that the server carried."""
    return next((Beyond(level, cause, because) for run in level.runs for cause, because in _causes(run)), None)


def _causes(run: MeasuredRun) -> Iterator[tuple[Cause, str]]:
    saturation = run.saturation
    if saturation is not None and saturation.is_saturated and saturation.in_flight and saturation.ttft:
        yield (
            Cause.QUEUE,
            f"over {saturation.duration_s:,.0f} s requests in flight grew by {saturation.in_flight.growth:.0%} of their mean and "
            f"ttft by {saturation.ttft.growth:.0%}",
        )
    num_failed = sum(run.summary.failures.values())
    if num_failed > FAILED_LIMIT * run.summary.num_requests:
        kinds = ", ".join(run.summary.failures)
        yield Cause.FAILED, f"{num_failed} of {run.summary.num_requests} requests failed ({kinds})"
    if run.achieved is not None and run.achieved < ACHIEVED_LIMIT:
        yield Cause.UNSENT, f"{run.achieved:.1%} of the requests could be sent in time"
