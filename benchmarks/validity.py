"""Whether a run's figures may be believed. Pure: faults make a run invalid, remarks are what its reader must know.

Every fault names its number, the limit and a fix. What a run cannot be held against (no ceiling measured, no gauge
read) is not judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.metrics import Offered, Summary
from benchmarks.statistics.little import LittleCheck
from benchmarks.statistics.saturation import Saturation

CLIENT_BUSY_LIMIT = 0.7
"""Share of a core above which the client may be what was measured."""

CEILING_LIMIT = 0.7
"""Share of what the client reaches against a server that costs nothing, above which it may be what was measured."""

SEND_LAG_LIMIT_S = 0.010
SEND_LAG_LIMIT_OF_TTFT = 0.05
"""A client late by more than the larger of 10 ms and this share of the median ttft adds to what it measures."""

ACHIEVED_LIMIT = 0.99
"""Share of the offered rate below which another load was measured than the one that is reported."""

REPETITIVE_LIMIT = 0.5
"""Share of answers. Below it, it is the model's way (asked to go on after its end, it repeats itself); above, its
numbers may be broken.
"""

MIN_E2E_IN_WINDOW = 5
"""Times the 95th percentile of e2e that an open loop must last: in a shorter one the slow answers are not there yet."""

CHUNKS_PER_READ_LIMIT = 1.1
"""Chunks that share a read have gap 0 between them; above this mean the median gap is no longer the server's pace."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What this client has reached against the mock on the same machine, per second."""

    request_rate: float
    chunk_rate: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a run besides its records; None is not judged."""

    ceiling: Ceiling | None = None
    offered: Offered | None = None
    """Of an open loop. None says closed loop: a stream that sends late then only makes the load smaller."""
    little: LittleCheck | None = None
    saturation: Saturation | None = None
    """None where over-saturation is meant, as at full throughput."""
    is_synthetic: bool = False
    """The server's weights are declared random, so what it says means nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Valid when there is no fault."""

    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    """Those of the faults that say that the client may be what was measured."""

    @property
    def is_valid(self) -> bool:
        """True when the figures may be used."""
        return not self.faults


_NOTHING = Evidence()


def judge(summary: Summary, client_busy: float, evidence: Evidence = _NOTHING) -> Verdict:
    """Faults and remarks of one run; `client_busy` is the share of a core that the client used."""
    client = tuple(_client(summary, client_busy, evidence.ceiling))
    faults = (
        *_answers(summary),
        *(() if evidence.is_synthetic else _output(summary)),
        *client,
        *_load(summary, evidence),
    )
    return Verdict(faults, tuple(_remarks(summary, evidence)), client)


def _answers(summary: Summary) -> Iterator[str]:
    if summary.failures:
        kinds = ", ".join(f"{num} {kind}" for kind, num in summary.failures.items())
        num_failed = sum(summary.failures.values())
        yield (
            f"{num_failed} of {summary.num_requests} requests failed ({kinds}); "
            "see the server's log, or ask for less: a lower rate, fewer streams"
        )
    if summary.num_short:
        yield f"{summary.num_short} of {summary.num_ok} answers are shorter than demanded (--min-tokens asks in another way)"


def _output(summary: Summary) -> Iterator[str]:
    fix = "look at what the server says; for random weights declare --synthetic-weights"
    if summary.num_vacuous:
        yield f"{summary.num_vacuous} of {summary.num_ok} answers hold tokens but next to no text; {fix}"
    if summary.num_repetitive > REPETITIVE_LIMIT * summary.num_ok:
        yield (
            f"{summary.num_repetitive} of {summary.num_ok} answers say the same over and over (more than "
            f"{REPETITIVE_LIMIT:.0%}): fast and broken; {fix}"
        )


def _client(summary: Summary, client_busy: float, ceiling: Ceiling | None) -> Iterator[str]:
    fix = "use more client processes or another machine"
    if client_busy > CLIENT_BUSY_LIMIT:
        yield f"the client used {client_busy:.0%} of a core (limit {CLIENT_BUSY_LIMIT:.0%}): it may be what was measured; {fix}"
    if ceiling is None:
        return
    rates = (
        ("requests", summary.request_rate, ceiling.request_rate),
        ("chunks", summary.chunk_rate or 0.0, ceiling.chunk_rate),
    )
    for name, rate, limit in rates:
        if rate > CEILING_LIMIT * limit:
            share = f"{rate / limit:.0%} of" if limit else "above"
            yield (
                f"{rate:,.0f} {name}/s are {share} the client's ceiling of {limit:,.0f}/s against the mock (limit "
                f"{CEILING_LIMIT:.0%}): the client may be what was measured; {fix}"
            )


def _load(summary: Summary, evidence: Evidence) -> Iterator[str]:
    if evidence.offered is not None:
        yield from _open_loop(summary, evidence.offered)
    little = evidence.little
    if little is not None and little.is_fault:
        yield (
            f"Little's law is off by {little.error or 0.0:.1%} (limit {little.limit:.0%}): the engine held "
            f"{little.num_in_engine or 0.0:,.2f} requests, rate times latency is {little.num_in_flight:,.2f}; somebody "
            "else's traffic, or answers that the engine did not make: measure alone, and without a cache in between"
        )
    if evidence.saturation is not None and evidence.saturation.is_saturated:
        yield _oversaturated(evidence.saturation)


def _open_loop(summary: Summary, offered: Offered) -> Iterator[str]:
    if offered.share < ACHIEVED_LIMIT:
        yield (
            f"{offered.achieved_rate:,.2f} of {offered.offered_rate:,.2f} requests/s were sent ({offered.share:.1%}, limit "
            f"{ACHIEVED_LIMIT:.0%}): another load was measured than the one asked for; use more client processes, or a lower rate"
        )
    lag = summary.send_lag_s
    lag_s, limit_s = (lag.p99 if lag.p99 is not None else lag.max) if lag else 0.0, send_lag_limit_s(summary)
    if lag_s > limit_s:
        yield (
            f"the client sent late: p99 {lag_s * 1e3:,.1f} ms (limit {limit_s * 1e3:,.1f} ms, the larger of 10 ms and 5 % of the median "
            "ttft); use more client processes, or a lower rate"
        )
    e2e = summary.e2e_s
    if e2e is not None and e2e.p95 is not None and summary.duration_s < MIN_E2E_IN_WINDOW * e2e.p95:
        yield (
            f"the run took {summary.duration_s:,.1f} s, {summary.duration_s / e2e.p95:.1f} times the 95th percentile of e2e (limit "
            f"{MIN_E2E_IN_WINDOW}): the slowest answers weigh too little; measure for at least {MIN_E2E_IN_WINDOW * e2e.p95:,.0f} s"
        )


def send_lag_limit_s(summary: Summary) -> float:
    """The latest that the client may be at p99."""
    median = summary.ttft_s.p50 if summary.ttft_s else None
    return max(SEND_LAG_LIMIT_S, SEND_LAG_LIMIT_OF_TTFT * (median or 0.0))


def _oversaturated(found: Saturation) -> str:
    in_flight = found.in_flight.growth if found.in_flight else 0.0
    ttft = found.ttft.growth if found.ttft else 0.0
    return (
        f"the load is more than the server carries: over {found.duration_s:,.0f} s requests in flight grew by "
        f"{in_flight:.0%} of their mean and ttft by {ttft:.0%}, both significantly; latencies then tell how long the run "
        "was: offer a lower rate"
    )


def _remarks(summary: Summary, evidence: Evidence) -> Iterator[str]:
    if evidence.is_synthetic:
        yield "the weights are declared synthetic: what the server said was not checked"
    if summary.token_sources.get("chunks"):
        yield "the server sent no usage: chunks were counted as tokens, wrong where chunks bundle them"
    if summary.token_sources.get("limit"):
        yield "the server sent no usage: answers that ended for length were taken to have all tokens asked for"
    if summary.num_usage_differs:
        yield (
            f"tokens and chunks differ by more than 2 % in {summary.num_usage_differs} of {summary.num_ok} answers "
            f"({summary.tokens_per_chunk or 0.0:.2f} tokens per chunk): itl is between chunks, tpot between tokens"
        )
    if (summary.chunks_per_read or 0.0) > CHUNKS_PER_READ_LIMIT:
        yield (
            f"{summary.chunks_per_read:.2f} chunks came per read: they were sent together, or the client came late; "
            "itl then tells less than tpot"
        )
    if summary.num_tpot_undefined:
        yield f"{summary.num_tpot_undefined} answers had fewer than two tokens and have no tpot"
    if 0 < summary.num_repetitive <= REPETITIVE_LIMIT * summary.num_ok and not evidence.is_synthetic:
        yield f"{summary.num_repetitive} of {summary.num_ok} answers say the same over and over"
    if summary.num_cancelled:
        yield f"{summary.num_cancelled} requests were cut off by the client on purpose and count as neither answers nor failures"
    if evidence.little is not None and evidence.little.not_judged:
        yield f"Little's law was not judged: {evidence.little.not_judged}"
