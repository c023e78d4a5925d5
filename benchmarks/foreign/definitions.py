"""What each tool's figures mean: figures of the same name here are the same quantity, apart from what their provisos say.

ours      benchmarks.metrics
vLLM      vllm/benchmarks/serve.py and lib/endpoint_request_func.py of 0.32
GuideLLM  guidellm/schemas/base/request_stats.py and benchmark/schemas/metrics.py of 0.8.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

OURS, VLLM, GUIDELLM = "forgegate bench", "vllm bench serve", "guidellm"
TOOLS = (OURS, VLLM, GUIDELLM)
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "tpot_with_first_s")
RATES = ("output_tps", "request_rate")
HIGHER_IS_BETTER = frozenset(RATES)


@dataclass(frozen=True, slots=True)
class Definition:
    """One figure of one tool."""

    field: str
    """What the tool itself calls it."""
    formula: str
    proviso: str = ""
    """Where it is another number than that of the others by this name; empty where nowhere."""


_FIRST_ANY = (
    "the client's own work and its connection are in it; a chunk without text (a role) counts as first: earlier where a server "
    "sends one before it has a token"
)
_FROM_BEFORE = (
    "the client's own work and its connection are in it; a last chunk that only holds the finish reason counts, too"
)
_LAST_ANY = "a last chunk that only holds the finish reason counts, too: later where it comes on its own"
_GAPS = "a role and a finish reason make gaps, too: of no length, so that the mean is smaller, where they come together with text"
_WEIGHTED = (
    "requests weigh by their tokens, and percentiles are a sample's own value: others where answers differ in length"
)
_END = "the stream's own end counts, not its last token's"
_WINDOW = "over the measured part of the run, which leaves out warm-up and cool-down where they are configured"

DEFINITIONS: Mapping[str, Mapping[str, Definition]] = {
    OURS: {
        "output_tps": Definition("output_tps", "output tokens of answered requests / (first due to last ended)"),
        "request_rate": Definition("request_rate", "answered requests / (first due to last ended)"),
        "ttft_s": Definition("ttft_s", "first chunk with text - request's bytes written"),
        "tpot_s": Definition("tpot_s", "(last - first chunk with text) / (tokens - 1), of each request"),
        "itl_s": Definition("itl_s", "gaps between chunks with text, of all requests together"),
        "e2e_s": Definition("e2e_s", "last chunk with text - request's bytes written"),
    },
    VLLM: {
        "output_tps": Definition("output_throughput", "output tokens of answered requests / (first sent to last ended)"),
        "request_rate": Definition("request_throughput", "answered requests / (first sent to last ended)"),
        "ttft_s": Definition("ttft", "first chunk with choices - before the connection is asked for", _FIRST_ANY),
        "tpot_s": Definition("tpot", "(last - first chunk with choices) / (tokens - 1), of each request", _LAST_ANY),
        "itl_s": Definition("itl", "gaps between chunks with choices, of all requests together", _GAPS),
        "e2e_s": Definition("e2el", "last chunk with choices - before the connection is asked for", _FROM_BEFORE),
    },
    GUIDELLM: {
        "output_tps": Definition("output_tokens_per_second", "tokens of answered requests, spread evenly over each, / window", _WINDOW),
        "request_rate": Definition("requests_per_second", "answered requests / window", _WINDOW),
        "ttft_s": Definition("time_to_first_token_ms", "first chunk with a token - request's head written"),
        "tpot_s": Definition("inter_token_latency_ms", "(last - first chunk with a token) / (tokens - 1), of each request", _WEIGHTED),
        "tpot_with_first_s": Definition("time_per_output_token_ms", "(last chunk with a token - request's head written) / tokens"),
        "e2e_s": Definition("request_latency", "end of the stream - request's head written", _END),
    },
}  # fmt: skip


def provisos(figure: str, *tools: str) -> Iterator[str]:
    """Why a figure of these tools may differ though they measured the same; of one tool there is no reason."""
    if len(set(tools)) < 2:
        return
    for tool in dict.fromkeys(tools):
        found = DEFINITIONS[tool].get(metric_of(figure))
        if found is not None and found.proviso:
            yield f"{tool}: {found.proviso}"


def metric_of(figure: str) -> str:
    """`ttft_s` of `ttft_s.p99`."""
    return figure.partition(".")[0]
