"""Why no higher rate is worth measuring: the server does not carry this one, or the run is void and says nothing of it. Pure."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.campaign import Level, MeasuredRun
from benchmarks.record import FailureKind, Record
from benchmarks.validity import ACHIEVED_LIMIT

FAILED_LIMIT = 0.05
"""Share of requests. A server that turns requests away has no queue that could grow."""
_TURNED_AWAY = (429, 503)
"""Statuses by which a server says itself that it is asked for too much."""


class Cause(StrEnum):
    """What showed it."""

    QUEUE = "queue"
    """Requests in flight and time to first token grew for as long as requests came."""
    REJECTED = "rejected"
    """The server turned requests away, with 429 or 503."""
    UNSENT = "unsent"
    """Requests could not be sent in time."""
    CLIENT = "client"
    """The client may be what was measured."""
    FAILED = "failed"
    """Requests failed in another way: a server that has died is no server that is too slow."""

    @property
    def is_fault(self) -> bool:
        """True where the run is void: it says nothing about what the server carries."""
        return self not in (Cause.QUEUE, Cause.REJECTED)


@dataclass(frozen=True, slots=True)
class Beyond:
    """A load beyond which nothing is measured."""

    level: Level
    cause: Cause
    because: str
    """In numbers, for people."""


def beyond_of(level: Level) -> Beyond | None:
    """By its worst repeat, faults before all else; None for a load that the server carried."""
    found = [Beyond(level, cause, because) for run in level.runs for cause, because in _causes(run)]
    return min(found, key=lambda each: not each.cause.is_fault, default=None)


def _causes(run: MeasuredRun) -> Iterator[tuple[Cause, str]]:
    failed = [record for record in run.load.records if record.failure and not record.is_cancelled]
    turned_away = [record for record in failed if _is_turned_away(record)]
    broken = [record for record in failed if not _is_turned_away(record)]
    too_much = [*_grown(run), *_rejected(run, turned_away)]
    if len(broken) > FAILED_LIMIT * run.summary.num_requests or (broken and too_much):
        yield Cause.FAILED, _told(run, broken)
    if run.achieved is not None and run.achieved < ACHIEVED_LIMIT:
        yield Cause.UNSENT, f"{run.achieved:.1%} of the requests could be sent in time"
    if too_much and run.verdict.client:
        yield Cause.CLIENT, run.verdict.client[0]
    yield from too_much


def _grown(run: MeasuredRun) -> Iterator[tuple[Cause, str]]:
    saturation = run.saturation
    if saturation is not None and saturation.is_saturated and saturation.in_flight and saturation.ttft:
        yield (
            Cause.QUEUE,
            f"over {saturation.duration_s:,.0f} s requests in flight grew by {saturation.in_flight.growth:.0%} of their mean and "
            f"ttft by {saturation.ttft.growth:.0%}",
        )


def _rejected(run: MeasuredRun, turned_away: list[Record]) -> Iterator[tuple[Cause, str]]:
    if len(turned_away) > FAILED_LIMIT * run.summary.num_requests:
        yield Cause.REJECTED, _told(run, turned_away)


def _is_turned_away(record: Record) -> bool:
    return (
        record.failure is not None and record.failure.kind is FailureKind.HTTP_STATUS and record.status in _TURNED_AWAY
    )


def _told(run: MeasuredRun, failed: list[Record]) -> str:
    """`12 of 40 requests failed (10 reset, 2 http_status 500)`."""
    kinds = Counter(_kind(record) for record in failed)
    listed = ", ".join(f"{num} {kind}" for kind, num in kinds.most_common())
    return f"{len(failed)} of {run.summary.num_requests} requests failed ({listed})"


def _kind(record: Record) -> str:
    assert record.failure is not None, "only failures are told"
    kind = record.failure.kind
    return f"{kind.value} {record.status}" if kind is FailureKind.HTTP_STATUS else kind.value
