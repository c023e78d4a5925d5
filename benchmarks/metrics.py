"""Formulas, over records and nothing else. Pure; version them with VERSION when a definition changes.

Per request, with `intended`, `sent`, `t_1` and `t_n` the arrivals of the first and last chunk with text, and `n` output
tokens by the server's `usage` (or the next best, Record.token_source):

    ttft       t_1 - sent             time to first token of the service
    ttft_user  t_1 - intended         the same as the user feels it: waiting for a connection or a slot counts
    tpot       (t_n - t_1) / (n - 1)  time per output token after the first; undefined for n < 2, never 0
    itl        gaps between neighbouring chunks with text, pooled over requests; chunks of one read have gap 0
    e2e        t_n - sent
    e2e_user   t_n - intended

Latencies are taken over answered requests. Failed ones stay in the counts and in `success_rate`, their time stays in
the duration, and their tokens do not count as output. Percentiles: see `percentile`.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.record import Record

VERSION = 1

USAGE_TOLERANCE = 0.02
"""Relative difference between tokens and chunks above which a request counts as differing."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of `num` samples, in their unit. A percentile is None where fewer than one sample would lie beyond it."""

    num: int
    mean: float
    stdev: float
    min: float
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One run at one load. Times in seconds, rates per second."""

    num_requests: int
    num_ok: int
    success_rate: float
    failures: dict[str, int]
    """By kind."""
    duration_s: float
    output_tokens: int
    input_tokens: int
    cached_tokens: int
    output_tps: float
    input_tps: float
    request_rate: float
    """Answered requests per second."""
    ttft_s: Distribution | None
    ttft_user_s: Distribution | None
    tpot_s: Distribution | None
    itl_s: Distribution | None
    e2e_s: Distribution | None
    e2e_user_s: Distribution | None
    num_tpot_undefined: int
    token_sources: dict[str, int]
    """Answered requests by Record.token_source; `chunks` is a guess."""
    num_chunks: int
    tokens_per_chunk: float | None
    chunks_per_read: float | None
    num_usage_differs: int
    """Answered requests whose tokens and chunks differ in number by more than 2 %, as where chunks bundle tokens."""
    finish_reasons: dict[str, int]
    num_short: int
    """Answered requests with fewer tokens than they demanded (ignore_eos or min_tokens)."""
    num_vacuous: int
    """Answered requests with tokens but next to no text."""


def percentile(samples: Sequence[float], q: float) -> float:
    """The q-th quantile, 0 <= q <= 1, of ascending `samples`: linear between the two closest ranks, position
    q * (n - 1) (Hyndman and Fan's definition 7, numpy's default). Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("no samples")
    position = q * (len(samples) - 1)
    low = math.floor(position)
    high = min(low + 1, len(samples) - 1)
    return samples[low] + (samples[high] - samples[low]) * (position - low)


def distribution(samples: Iterable[float]) -> Distribution | None:
    """None without samples. `stdev` is that of the sample (n - 1), 0 for one."""
    ordered = sorted(samples)
    if not ordered:
        return None
    num = len(ordered)
    mean = math.fsum(ordered) / num
    variance = math.fsum((value - mean) ** 2 for value in ordered) / (num - 1) if num > 1 else 0.0
    # p99 of 20 samples would only be their maximum under another name.
    p50, p90, p95, p99 = (percentile(ordered, q) if num * (1 - q) >= 1 - 1e-9 else None for q in (0.5, 0.9, 0.95, 0.99))
    return Distribution(num, mean, math.sqrt(variance), ordered[0], p50, p90, p95, p99, ordered[-1])


def ttft_s(record: Record) -> float | None:
    """None without a chunk."""
    return record.chunk_times_s[0] - record.sent_s if record.chunk_times_s and record.sent_s is not None else None


def ttft_user_s(record: Record) -> float | None:
    """None without a chunk."""
    return record.chunk_times_s[0] - record.intended_s if record.chunk_times_s else None


def tpot_s(record: Record) -> float | None:
    """None for fewer than two tokens or chunks."""
    if len(record.chunk_times_s) < 2 or record.num_output_tokens < 2:
        return None
    return (record.chunk_times_s[-1] - record.chunk_times_s[0]) / (record.num_output_tokens - 1)


def itl_s(record: Record) -> list[float]:
    """One gap fewer than chunks."""
    times = record.chunk_times_s
    return [after - before for before, after in itertools.pairwise(times)]


def e2e_s(record: Record) -> float | None:
    """None without a chunk."""
    return record.chunk_times_s[-1] - record.sent_s if record.chunk_times_s and record.sent_s is not None else None


def e2e_user_s(record: Record) -> float | None:
    """None without a chunk."""
    return record.chunk_times_s[-1] - record.intended_s if record.chunk_times_s else None


def is_short(record: Record) -> bool:
    """True when fewer tokens came than the request demanded."""
    return record.is_exact and record.num_output_tokens < record.max_tokens


def is_vacuous(record: Record) -> bool:
    """True when tokens were counted but hardly a character came: fewer than one for eight tokens."""
    return record.num_output_tokens >= 8 and len(record.text) * 8 < record.num_output_tokens


def usage_differs(record: Record) -> bool:
    """True when the server's count and the number of chunks with text are more than 2 % apart."""
    num_tokens = record.num_output_tokens
    return abs(len(record.chunk_times_s) - num_tokens) > USAGE_TOLERANCE * num_tokens


def summarise(records: Sequence[Record], duration_s: float) -> Summary:
    """All figures of one run that took `duration_s`."""
    answered = [record for record in records if record.is_ok]
    output_tokens = sum(record.num_output_tokens for record in answered)
    input_tokens = sum(record.prompt_tokens or 0 for record in answered)
    num_chunks = sum(len(record.chunk_times_s) for record in answered)
    num_reads = sum(record.num_reads for record in answered)
    tpots = [tpot_s(record) for record in answered]
    return Summary(
        num_requests=len(records),
        num_ok=len(answered),
        success_rate=_ratio(len(answered), len(records)) or 0.0,
        failures=_tally(record.failure.kind.value for record in records if record.failure),
        duration_s=duration_s,
        output_tokens=output_tokens,
        input_tokens=input_tokens,
        cached_tokens=sum(record.cached_tokens or 0 for record in answered),
        output_tps=_ratio(output_tokens, duration_s) or 0.0,
        input_tps=_ratio(input_tokens, duration_s) or 0.0,
        request_rate=_ratio(len(answered), duration_s) or 0.0,
        ttft_s=_defined(map(ttft_s, answered)),
        ttft_user_s=_defined(map(ttft_user_s, answered)),
        tpot_s=_defined(tpots),
        itl_s=distribution(gap for record in answered for gap in itl_s(record)),
        e2e_s=_defined(map(e2e_s, answered)),
        e2e_user_s=_defined(map(e2e_user_s, answered)),
        num_tpot_undefined=tpots.count(None),
        token_sources=_tally(record.token_source for record in answered),
        num_chunks=num_chunks,
        tokens_per_chunk=_ratio(output_tokens, num_chunks),
        chunks_per_read=_ratio(num_chunks, num_reads),
        num_usage_differs=sum(map(usage_differs, answered)),
        finish_reasons=_tally(record.finish_reason or "none" for record in answered),
        num_short=sum(map(is_short, answered)),
        num_vacuous=sum(map(is_vacuous, answered)),
    )


def _defined(samples: Iterable[float | None]) -> Distribution | None:
    return distribution(sample for sample in samples if sample is not None)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
