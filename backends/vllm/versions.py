"""What vLLM's versions call things: flags and metrics, one table per version that is supported and tested.

Flags are those of `vllm/engine/arg_utils.py` and `entrypoints/**/cli_args.py`, metrics those of `vllm/v1/metrics/loggers.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

Release = tuple[int, int]
_NUMBERS = re.compile(r"v?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Names on the /metrics page."""

    num_running: str = "vllm:num_requests_running"
    num_waiting: str = "vllm:num_requests_waiting"
    kv_usage: str = "vllm:kv_cache_usage_perc"
    """0 to 1, whatever its name says."""
    num_preemptions: str = "vllm:num_preemptions_total"
    num_prompt_tokens: str = "vllm:prompt_tokens_total"
    num_cached_tokens: str = "vllm:prompt_tokens_cached_total"
    num_generated_tokens: str = "vllm:generation_tokens_total"
    num_drafts: str = "vllm:spec_decode_num_drafts_total"
    num_draft_tokens: str = "vllm:spec_decode_num_draft_tokens_total"
    num_accepted_tokens: str = "vllm:spec_decode_num_accepted_tokens_total"
    lora_info: str = "vllm:lora_requests_info"
    running_adapters_label: str = "running_lora_adapters"
    """Names of adapters with running requests, separated by commas; the newest sample is the one with the highest value."""


@dataclass(frozen=True, slots=True)
class Table:
    """One version's names."""

    release: Release
    flags: Mapping[str, str]
    """Flag of each option, those in groups as `group.option`; an option that is not here is written in another way, or not at all."""
    metrics: Metrics

    @property
    def words(self) -> str:
        return f"{self.release[0]}.{self.release[1]}"


_SAME = (
    "dtype", "quantization", "max_model_len", "gpu_memory_utilization", "tensor_parallel_size", "pipeline_parallel_size",
    "data_parallel_size", "max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching", "enable_chunked_prefill",
    "kv_cache_dtype", "attention_backend", "enforce_eager", "optimization_level", "chat_template", "tool_call_parser",
    "reasoning_parser", "trust_remote_code", "seed", "load_format", "tokenizer", "runner", "convert",
)  # fmt: skip
"""Options whose flag has the same name."""
_OTHERS = {
    "sleep_mode": "--enable-sleep-mode",
    "compilation": "--compilation-config",
    "speculative": "--speculative-config",
    "lora": "--enable-lora",
    "lora.max_loras": "--max-loras",
    "lora.max_rank": "--max-lora-rank",
    "lora.max_cpu_loras": "--max-cpu-loras",
    "lora.target_modules": "--lora-target-modules",
    "lora.fully_sharded": "--fully-sharded-loras",
    "lora.dtype": "--lora-dtype",
}
V0_26 = Table((0, 26), {name: f"--{name.replace('_', '-')}" for name in _SAME} | _OTHERS, Metrics())
V0_32 = replace(V0_26, release=(0, 32))
TABLES = (V0_26, V0_32)
"""Oldest first."""


def release_of(version: str) -> Release | None:
    """`0.32.0+cpu` as (0, 32); None: a version that cannot be read, of a source tree for example."""
    match = _NUMBERS.match(version)
    return (int(match[1]), int(match[2])) if match else None


def table_of(version: str) -> Table:
    """The table of this version, else of the nearest older one; of the oldest for those before it, the newest for those unreadable."""
    release = release_of(version)
    if release is None:
        return TABLES[-1]
    fitting = [table for table in TABLES if table.release <= release]
    return fitting[-1] if fitting else TABLES[0]
