"""What is tried where nothing is listed: options that move speed on most machines, and words for groups of them.

Prefix caches are not among them: generated prompts share nothing, so that a cache could only lose here and win for users. Nor
is what changes what is served (context length, adapters, templates): give that by `--set`.
"""

from typing import Any

from benchmarks.engine_choice import LLAMACPP, VLLM
from benchmarks.optimize.settings import Dimension, Words

NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
"""vLLM's own example depth: deeper pays only where answers repeat their prompts."""
DRAFT_DEPTH = 4


def words_of(kind: str, draft: str | None) -> Words:
    """`draft` is the folder of a draft model, or `demo`; without one the word is not known."""
    if kind != VLLM:
        return {}
    words: dict[str, Any] = {"off": None, "ngram": NGRAM}
    if draft is not None:
        words["draft"] = {"method": "draft_model", "model": draft, "num_speculative_tokens": DRAFT_DEPTH}
    return {"speculative": words}


def usual(kind: str, num_cores: int, has_gpu: bool, draft: str | None) -> tuple[Dimension, ...]:
    """The list for an engine of this kind on such a machine."""
    if kind == LLAMACPP:
        return _llamacpp(num_cores, has_gpu)
    speculative = tuple(words_of(VLLM, draft)["speculative"].values())
    common = (
        Dimension("max_num_seqs", (None, 16, 64, 512)),
        Dimension("max_num_batched_tokens", (None, 1024, 4096, 16384)),
        Dimension("speculative", speculative),
    )
    if not has_gpu:
        return common
    return (*common, Dimension("kv_cache_dtype", (None, "fp8")), Dimension("gpu_memory_utilization", (None, 0.95)))


def _llamacpp(num_cores: int, has_gpu: bool) -> tuple[Dimension, ...]:
    common = (
        Dimension("n_seq_max", (None, 8, 64)),
        Dimension("kv_unified", (None, False)),
        Dimension("n_batch", (None, 128, 1024)),
        Dimension("flash_attn", (None, "on", "off")),
        Dimension("cache_type_k", (None, "q8_0")),
    )
    if has_gpu:
        return common
    threads = sorted({max(1, num_cores // 2), num_cores})
    return (*common, Dimension("n_threads", (None, *threads)))
