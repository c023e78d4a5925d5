"""All claims that are measured: which section, how long it may take, and by what."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.claims import batching, offline, prompts, serving, speculation
from benchmarks.claims.setting import Setting


@dataclass(frozen=True, slots=True)
class Section:
    """One claim, or a few that the same runs can show."""

    name: str
    title: str
    measure: Callable[[Setting], Awaitable[dict[str, Any]]]
    needs_vllm: bool = False
    needs_torch: bool = False


SECTIONS = (
    Section("continuous", "Continuous batching against static batching", batching.continuous, needs_torch=True),
    Section("paged", "PagedAttention against reserving the longest", batching.paged),
    Section("prefix", "Prefix caching", prompts.prefix),
    Section("chunked", "Chunked prefill", prompts.chunked),
    Section("speculation", "Speculation: the demo model and its draft", speculation.real, needs_vllm=True),
    Section("synthetic", "Speculation at given acceptances", speculation.synthetic, needs_vllm=True),
    Section("parallel", "Speculation at given acceptances, drafted in one pass", speculation.parallel, needs_vllm=True),
    Section("quantised", "Quantisation levels", offline.quantised),
    Section("lora", "What adapters cost", serving.lora),
    Section("attention", "Kinds of attention by prompt length", offline.attention, needs_torch=True),
    Section("gateway", "What the gateway costs", serving.gateway),
)
