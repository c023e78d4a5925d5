"""Formulas, over records and nothing else. Pure; version them with VERSION when a definition changes.

Per request, with `intended`, `sent`, `t_1` and `t_n` the arrivals of the first and last chunk with text, and `n` output
tokens by the server's `usage` (or the next best, Record.token_source):

    send_lag   sent - intended        what the client itself is late by
    ttft       t_1 - sent             time to first token of the service
    ttft_user  t_1 - intended         the same as the user feels it: waiting for a connection or a slot counts
    tpot       (t_n - t_1) / (n - 1)  time per output token after the first; undefined for n < 2, never 0
    itl        gaps between neighbouring chunks with text, pooled over requests; chunks of one read have gap 0
    e2e        t_n - sent
    e2e_user   t_n - intended
    queue      what the server says that the request waited, where it does

Of a run that took `duration`:

    output_tps       sum of n / duration; input_tps and total_tps with the prompts' tokens, and with both
    *_per_gpu        the same by the number of GPUs, where it is told
    tps_per_user     1 / mean tpot: the pace at which one user reads
    request_rate     answered requests / duration; chunk_rate likewise
    prefix_hit_rate  sum of cached prompt tokens / sum of prompt tokens, over the answers whose server tells
    chunk_chars      chunks by their text's length: itl is between chunks, and speculation bundles tokens in them
    energy           joules that the GPUs which were named took from the run's start to its end, as NVML counts them
                     (nvmlDeviceGetTotalEnergyConsumption), idle or at work, for failed requests and for whomever else
    energy_per_token energy / sum of n: joules per output token of an answer

Of a run that is held against a service level objective, such as ttft_p99<500ms; its latencies are those of users:

    good             answered, and every objective defined and held
    goodput          good / duration
    attainment       good / (good + missed + failed): errors, timeouts and rejects are missed promises
    passed           each objective's share of requests is shown, with 99 % confidence, by the exact binomial test of MLPerf's
                     early stopping: P(at most t of n miss | the share is just reached) <= 1 - confidence
    capacity@SLO     the highest offered rate that passed, below every rate that did not

Latencies are taken over answered requests. Failed ones stay in the counts and in `success_rate`, their time stays in
the duration, and their tokens do not count as output. Those that the client cut off on purpose are counted apart, as
neither. Percentiles: see `percentile`.

Version 2 has added send_lag, queue, total and per-GPU rates, tps_per_user, chunk_rate, prefix_hit_rate, chunk_chars,
and the counts of cancelled requests and repetitive answers; version 3 goodput, attainment and capacity@SLO; version 4 energy and
energy_per_token. What earlier versions had means the same. `summary_of` reads all of them.
"""

import itertools
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from benchmarks.record import Record
from benchmarks.statistics.goodput import Outcome

VERSION = 4

USAGE_TOLERANCE = 0.02
"""Relative difference between tokens and chunks above which a request counts as differing."""

REPETITIVE_BYTES = 512
REPETITIVE_RATIO = 0.1
"""A text of so many bytes that zlib makes ten times smaller says the same over and over; prose shrinks to about half.
"""


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
    num_cancelled: int = 0
    """Cut off by the client on purpose; in `num_requests`, and in nothing else."""
    num_repetitive: int = 0
    """Answered requests whose text says the same over and over."""
    send_lag_s: Distribution | None = None
    """Of all requests that were sent, failed ones too."""
    queue_s: Distribution | None = None
    total_tps: float | None = None
    """None where an answer's prompt tokens are not known."""
    tps_per_user: float | None = None
    output_tps_per_gpu: float | None = None
    total_tps_per_gpu: float | None = None
    chunk_rate: float | None = None
    chunk_chars: dict[str, int] = field(default_factory=dict)
    """By length in characters: `1`, `2-3`, `4-7`, and so on."""
    prefix_hit_rate: float | None = None
    """None where no server told."""
    energy_j: float | None = None
    """None where it was not measured."""
    energy_per_token_j: float | None = None


def definitions() -> str:
    """What every figure of a result means, for its readers: this module's own text."""
    return f"Definitions, version {VERSION}\n\n{__doc__}".strip()


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


def send_lag_s(record: Record) -> float | None:
    """None when nothing was sent."""
    return record.sent_s - record.intended_s if record.sent_s is not None else None


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


def token_arrivals(records: Iterable[Record]) -> Iterator[tuple[float, float]]:
    """(arrival, tokens) of every chunk: a request's tokens are spread over its chunks by their length in characters."""
    for record in records:
        num_chars = sum(record.chunk_chars)
        for at_s, chars in zip(record.chunk_times_s, record.chunk_chars, strict=True):
            yield at_s, record.num_output_tokens * chars / num_chars if num_chars else 0.0


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
    if not num_tokens and not record.text:  # an embedding: one piece, without text or output tokens
        return False
    return abs(len(record.chunk_times_s) - num_tokens) > USAGE_TOLERANCE * num_tokens


def is_repetitive(record: Record) -> bool:
    """True for a long text that says the same over and over, as an engine with broken numbers makes it."""
    data = record.text.encode("utf-8", "replace")
    return len(data) >= REPETITIVE_BYTES and len(zlib.compress(data, 1)) < REPETITIVE_RATIO * len(data)


def outcomes(records: Iterable[Record], *, is_user: bool = True) -> list[Outcome]:
    """What an SLO is held against: as the user feels it (from the intended time) or of the service (from the sending)."""
    return [
        Outcome(
            {
                "ttft": ttft_user_s(record) if is_user else ttft_s(record),
                "tpot": tpot_s(record),
                "itl": max(itl_s(record), default=None),
                "e2e": e2e_user_s(record) if is_user else e2e_s(record),
                "queue": record.queue_s,
            },
            is_answered=record.is_ok,
            output_tokens=record.num_output_tokens,
            is_cancelled=record.is_cancelled,
        )
        for record in records
    ]


@dataclass(frozen=True, slots=True)
class Offered:
    """The rate of an open loop that was meant, and the one that the client managed."""

    offered_rate: float
    achieved_rate: float

    @property
    def share(self) -> float:
        """Achieved of offered."""
        return self.achieved_rate / self.offered_rate


def offered(records: Iterable[Record]) -> Offered | None:
    """From the requests' intended times, and from their send times as far as they were sent. None for fewer than two
    different ones.
    """
    listed = list(records)
    intended = [record.intended_s for record in listed]
    span_s = max(intended, default=0.0) - min(intended, default=0.0)
    if span_s <= 0:
        return None
    sent = [record.sent_s for record in listed if record.sent_s is not None]
    took_s = max(sent, default=0.0) - min(intended)
    achieved = len(sent) / max(took_s, span_s) if sent else 0.0
    return Offered(len(listed) / span_s, achieved)


def summarise(
    records: Sequence[Record], duration_s: float, num_gpus: int | None = None, energy_j: float | None = None
) -> Summary:
    """All figures of one run that took `duration_s`, and `energy_j` where that is known."""
    answered = [record for record in records if record.is_ok]
    num_cancelled = sum(record.is_cancelled for record in records)
    output_tokens = sum(record.num_output_tokens for record in answered)
    input_tokens = sum(record.prompt_tokens or 0 for record in answered)
    num_chunks = sum(len(record.chunk_times_s) for record in answered)
    num_reads = sum(record.num_reads for record in answered)
    tpots = [tpot_s(record) for record in answered]
    tpot = _defined(tpots)
    output_tps = _ratio(output_tokens, duration_s) or 0.0
    total_tps = _total_tps(answered, duration_s)
    return Summary(
        num_requests=len(records),
        num_ok=len(answered),
        success_rate=_ratio(len(answered), len(records) - num_cancelled) or 0.0,
        failures=_tally(record.failure.kind.value for record in records if record.failure and not record.is_cancelled),
        duration_s=duration_s,
        output_tokens=output_tokens,
        input_tokens=input_tokens,
        cached_tokens=sum(record.cached_tokens or 0 for record in answered),
        output_tps=output_tps,
        input_tps=_ratio(input_tokens, duration_s) or 0.0,
        request_rate=_ratio(len(answered), duration_s) or 0.0,
        ttft_s=_defined(map(ttft_s, answered)),
        ttft_user_s=_defined(map(ttft_user_s, answered)),
        tpot_s=tpot,
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
        num_cancelled=num_cancelled,
        num_repetitive=sum(map(is_repetitive, answered)),
        send_lag_s=_defined(map(send_lag_s, records)),
        queue_s=_defined(record.queue_s for record in answered),
        total_tps=total_tps,
        tps_per_user=_ratio(1.0, tpot.mean) if tpot else None,
        output_tps_per_gpu=output_tps / num_gpus if num_gpus else None,
        total_tps_per_gpu=total_tps / num_gpus if num_gpus and total_tps is not None else None,
        chunk_rate=_ratio(num_chunks, duration_s),
        chunk_chars=_sizes(size for record in answered for size in record.chunk_chars if size),
        prefix_hit_rate=_prefix_hit_rate(answered),
        energy_j=energy_j,
        energy_per_token_j=None if energy_j is None else _ratio(energy_j, output_tokens),
    )


def summary_of(result: Mapping[str, Any]) -> Summary:
    """A summary as a result file holds it, of this version or an older one: what that did not have yet is None, 0 or
    empty. Raises ValueError when it is none.
    """
    known = {each.name for each in fields(Summary)}
    try:
        return Summary(**{name: _read(name, value) for name, value in result.items() if name in known})
    except TypeError as exc:
        raise ValueError(f"not the summary of a run: {exc}") from exc


def _read(name: str, value: Any) -> Any:
    return Distribution(**value) if name.endswith("_s") and isinstance(value, Mapping) else value


def _total_tps(answered: Sequence[Record], duration_s: float) -> float | None:
    if any(record.prompt_tokens is None for record in answered):
        return None
    return _ratio(sum(record.num_output_tokens + (record.prompt_tokens or 0) for record in answered), duration_s)


def _prefix_hit_rate(answered: Iterable[Record]) -> float | None:
    told = [(record.cached_tokens, record.prompt_tokens) for record in answered]
    pairs = [(cached, prompt) for cached, prompt in told if cached is not None and prompt]
    return _ratio(sum(cached for cached, _ in pairs), sum(prompt for _, prompt in pairs))


def _sizes(lengths: Iterable[int]) -> dict[str, int]:
    """Counts by powers of two, shortest first."""
    by_bits = Counter(length.bit_length() for length in lengths)
    return {_size_name(bits): by_bits[bits] for bits in sorted(by_bits)}


def _size_name(bits: int) -> str:
    low, high = (1 << bits) >> 1, (1 << bits) - 1
    return str(low) if low == high else f"{low}-{high}"


def _defined(samples: Iterable[float | None]) -> Distribution | None:
    return distribution(sample for sample in samples if sample is not None)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
