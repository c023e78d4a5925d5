"""What a benchmark may be asked for, checked, and the command that measures it. Pure.

The command is `forgegate bench run`, with the same words.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from gateway import errors

DEFAULT_STREAMS = (1, 8, 32)
MAX_LOADS = 8
MAX_STREAMS = 4096
MAX_RATE = 10_000.0
MAX_REQUESTS = 100_000
"""Of one load and repeat."""
MAX_REPEATS = 20
MAX_DURATION_S = 3600.0
MAX_RUN_S = 7200.0
REPEAT_S = 1800.0
"""What a repeat may take where nothing is said of the whole run."""
MAX_TOKENS = 1_000_000
MAX_PROMPT_TOKENS = 50_000_000
"""Of all requests of a load: they are made before the first one is sent, at some 5 bytes a token."""
MAX_SLO_CHARS = 200
MAX_SEED = 2**63 - 1
_UNIFORM = re.compile(r"([1-9]\d{0,6})(?:-([1-9]\d{0,6}))?")
_LOGNORMAL = re.compile(r"lognormal:(\d{1,7}(?:\.\d+)?),(\d(?:\.\d+)?)")
_SLO_PART = re.compile(r"[a-z0-9]+_p\d+(?:\.\d+)? *< *[\d.]+ *(?:us|ms|s)|[a-z0-9]+ *: *[\d.]+")
_SLO_PRESET = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_SLO = "ttft_p99<500ms,tpot_p99<30ms, or ttft:500,tpot:30 (milliseconds), or a preset such as interactive"
_LENGTHS = "a number of tokens (128), a range to draw from (64-256) or lognormal:MEAN,SIGMA"
_NOT_KEPT = '{"store": false}'
"""In every chat request: what a generator makes up does not belong into a log of conversations."""


@dataclass(frozen=True, slots=True)
class BenchmarkBody:
    """All but the model may be left out. `concurrency` makes closed loops, `rate` open ones; one of both."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    model: str
    """Any name that `/v1/models` lists."""
    concurrency: tuple[int, ...] = ()
    """Closed loop: streams, each number a load of its own; nothing: 1, 8 and 32."""
    rate: tuple[float, ...] = ()
    """Open loop: requests per second, each a load of its own, over `duration_s` or `requests`."""
    duration_s: float | None = None
    """Of each open loop."""
    requests: int | None = None
    """Per load and repeat; nothing, in a closed loop: 4 per stream, at least 8."""
    repeats: int = 3
    """Of all loads, interleaved."""
    seed: int = 0
    """Of the prompts, lengths and arrivals."""
    endpoint: Literal["chat", "completions", "embeddings"] = "chat"
    input_tokens: int | str = 32
    """128, 64-256 for a uniform draw, or lognormal:MEAN,SIGMA."""
    output_tokens: int | str = 128
    """As `input_tokens`."""
    slo: str = ""
    """What users are promised: ttft_p99<500ms,tpot_p99<30ms, or ttft:500,tpot:30 (milliseconds), or a preset such as interactive."""
    ceiling: bool = True
    """First measure what the client reaches here, some 5 s: a run above 70 % of that is void."""
    limit_s: float | None = None
    """The whole run is ended after this, without a result; nothing: 1800 for each repeat, at most 7200."""
    force: bool = False
    """Also while users' requests take more of the engines than a benchmark should be beside."""
    who: str = ""

    @property
    def longest_s(self) -> float:
        """What the whole run may take."""
        return min(MAX_RUN_S, REPEAT_S * self.repeats) if self.limit_s is None else self.limit_s


def require_sound(body: BenchmarkBody) -> None:
    """Raises BadRequest, which names the field."""
    _require_numbers("concurrency", body.concurrency, 1, MAX_STREAMS)
    _require_numbers("rate", body.rate, 0.01, MAX_RATE)
    _require("rate", not (body.rate and body.concurrency), "concurrency and rate are different loads: leave one out")
    _require_number("repeats", body.repeats, 1, MAX_REPEATS)
    _require_number("seed", body.seed, 0, MAX_SEED)
    _require_number("limit_s", body.longest_s, 1, MAX_RUN_S)
    if body.requests is not None:
        _require_number("requests", body.requests, 1, MAX_REQUESTS)
    for name in ("input_tokens", "output_tokens"):
        _require(name, _is_length(getattr(body, name)), f"{getattr(body, name)!r} is no length: write {_LENGTHS}")
    if body.slo:
        _require("slo", len(body.slo) <= MAX_SLO_CHARS, f"{len(body.slo):,} characters: {MAX_SLO_CHARS} at most")
        _require("slo", _is_slo(body.slo), f"{body.slo[:80]!r} is no service level objective: write {_SLO}")
    _require_end(body)
    _require_memory(body)


def _require_memory(body: BenchmarkBody) -> None:
    """The child's own, beside engines that need theirs."""
    requests, tokens = _most_requests(body), _most_tokens(str(body.input_tokens))
    most = requests * tokens
    _require(
        "requests" if body.requests else "input_tokens", most <= MAX_PROMPT_TOKENS,
        f"{requests:,.0f} requests of up to {tokens:,.0f} tokens are {most:,.0f} tokens of prompts: {MAX_PROMPT_TOKENS:,} at most",
    )  # fmt: skip


def _most_requests(body: BenchmarkBody) -> float:
    """Of one load."""
    if body.requests is not None:
        return body.requests
    if body.rate:
        return max(body.rate) * (body.duration_s or 0)
    return max(8, 4 * max(body.concurrency or DEFAULT_STREAMS))


def _most_tokens(length: str) -> float:
    """Of a prompt; of lognormal lengths their mean, which is what many of them come to."""
    found = _LOGNORMAL.fullmatch(length)
    return float(found[1]) if found else int(length.rpartition("-")[2])


def _require_end(body: BenchmarkBody) -> None:
    """An open loop has exactly one, within the time of the whole run."""
    if not body.rate:
        _require("duration_s", body.duration_s is None, "goes with rate; of a closed loop name the requests")
        return
    if body.duration_s is None:
        _require("duration_s", body.requests is not None, "an open loop needs duration_s or requests: name one of them")
        takes_s = sum((body.requests or 0) / rate for rate in body.rate)
    else:
        _require("duration_s", body.requests is None, "an open loop takes duration_s or requests: leave one out")
        _require_number("duration_s", body.duration_s, 1, MAX_DURATION_S)
        most = max(body.rate) * body.duration_s
        _require(
            "rate", most <= MAX_REQUESTS, f"{most:,.0f} requests at {max(body.rate):g}/s: {MAX_REQUESTS:,} at most"
        )
        takes_s = len(body.rate) * body.duration_s
    takes_s *= body.repeats
    _require(
        "limit_s", takes_s < body.longest_s,
        f"the loads alone take {takes_s:,.0f} s, the run is ended after {body.longest_s:,.0f} s: raise it, or ask for less",
    )  # fmt: skip


def command(body: BenchmarkBody, url: str, outs: Sequence[Path]) -> tuple[str, ...]:
    """Of a sound body. The key is in the child's environment, where no list of processes shows it."""
    words = [
        sys.executable, "-P", "-m", "benchmarks.cli", "run", "--url", url, "--model", body.model, "--endpoint", body.endpoint,
        "--input-tokens", str(body.input_tokens), "--output-tokens", str(body.output_tokens), "--repeats", str(body.repeats),
        "--seed", str(body.seed), "--ceiling" if body.ceiling else "--no-ceiling", *_load(body),
    ]  # fmt: skip
    if body.slo:
        words += ["--slo", body.slo]
    if body.endpoint == "chat":
        words += ["--body", _NOT_KEPT]
    return (*words, *(word for out in outs for word in ("--out", str(out))))


def load_words(body: BenchmarkBody) -> str:
    """`1, 8, 32 streams`, `2, 4.5 requests/s`."""
    if body.rate:
        return f"{_joined(body.rate, ', ')} requests/s"
    streams = body.concurrency or DEFAULT_STREAMS
    return "1 stream" if streams == (1,) else f"{_joined(streams, ', ')} streams"


def _load(body: BenchmarkBody) -> Iterator[str]:
    if body.rate:
        yield from ("--rate", _joined(body.rate))
    else:
        yield from ("--concurrency", _joined(body.concurrency or DEFAULT_STREAMS))
    if body.duration_s is not None:
        yield from ("--duration", _exact(body.duration_s))
    if body.requests is not None:
        yield from ("--requests", str(body.requests))


def _joined(numbers: Sequence[float], between: str = ",") -> str:
    return between.join(map(_exact, numbers))


def _exact(number: float) -> str:
    """All of its digits: the child measures what was asked for."""
    return str(int(number)) if number == int(number) else repr(number)


def _is_length(length: int | str) -> bool:
    text = str(length)
    if found := _UNIFORM.fullmatch(text):
        low, high = int(found[1]), int(found[2] or found[1])
        return low <= high <= MAX_TOKENS
    found = _LOGNORMAL.fullmatch(text)
    return found is not None and 1 <= float(found[1]) <= MAX_TOKENS


def _is_slo(text: str) -> bool:
    """By its form; what is promised, and whether there is such a preset, the command knows."""
    parts = text.split(",")
    return _SLO_PRESET.fullmatch(text) is not None or all(_SLO_PART.fullmatch(part.strip()) for part in parts)


def _require_numbers(name: str, numbers: Sequence[float], low: float, high: float) -> None:
    _require(name, len(numbers) <= MAX_LOADS, f"{len(numbers)} loads: {MAX_LOADS} at most")
    _require(name, len(set(numbers)) == len(numbers), "names a load twice: repeats does that")
    for number in numbers:
        _require_number(name, number, low, high)


def _require_number(name: str, number: float, low: float, high: float) -> None:
    is_inside = math.isfinite(number) and low <= number <= high
    _require(name, is_inside, f"must be {low:,g} to {high:,g}, got {number:g}")


def _require(name: str, holds: bool, words: str) -> None:
    if not holds:
        raise errors.BadRequest(f"{name}: {words}", param=name)
