"""Spellings that are not ours: vLLM's own flag names, and those of older versions and of tutorials. Translated where there is one meaning
only, else explained. Pure.

`--speculative-model X --num-speculative-tokens 5` was vLLM's until 0.8; since then it is one JSON flag.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PLACES: dict[str, tuple[str, str]] = {
    "speculative_model": ("speculative", "model"),
    "spec_model": ("speculative", "model"),
    "spec_method": ("speculative", "method"),
    "num_speculative_tokens": ("speculative", "num_speculative_tokens"),
    "spec_tokens": ("speculative", "num_speculative_tokens"),
    "num_speculative_tokens_per_batch_size": ("speculative", "num_speculative_tokens_per_batch_size"),
    "ngram_prompt_lookup_max": ("speculative", "prompt_lookup_max"),
    "ngram_prompt_lookup_min": ("speculative", "prompt_lookup_min"),
    "speculative_draft_tensor_parallel_size": ("speculative", "draft_tensor_parallel_size"),
    "max_loras": ("lora", "max_loras"),
    "max_lora_rank": ("lora", "max_rank"),
    "max_cpu_loras": ("lora", "max_cpu_loras"),
    "lora_target_modules": ("lora", "target_modules"),
    "fully_sharded_loras": ("lora", "fully_sharded"),
    "lora_dtype": ("lora", "dtype"),
    "cudagraph_capture_sizes": ("compilation", "cudagraph_capture_sizes"),
    "max_cudagraph_capture_size": ("compilation", "max_cudagraph_capture_size"),
}
"""Other names of options inside a group, and where they belong."""
RENAMED = {"enable_sleep_mode": "sleep_mode", "vllm_cpu_kvcache_space": "cpu_kv_cache_gib"}
"""Other names of options beside which there is no other meaning."""
GROUPS = {"speculative_config": "speculative", "compilation_config": "compilation"}
"""Flags whose JSON has our group's keys."""
ENABLE_LORA = "enable_lora"

_IN_POOL = "it is a key of the pool, not one of its options"
_OURS = "forgegate sets it itself; leave it out"
_GONE = "vLLM took it out, and does this always; leave it out"
EXPLAINED = {
    "model": f"{_IN_POOL}: write `model:` beside `engine:`",
    "served_model_name": "the model's `name:` is what clients ask for; leave it out",
    "replicas": f"{_IN_POOL}: write `replicas:` beside `engine:`",
    "python": f"{_IN_POOL}: write `python:` beside `engine:`",
    "revision": f"{_IN_POOL}: write it into the model's name there, ORG/NAME@REVISION",
    "host": _OURS,
    "port": _OURS,
    "api_key": f"{_OURS}; clients' keys are forgegate's",
    "middleware": _OURS,
    "lora_modules": "adapters are published: forgegate adapters publish NAME DIRECTORY",
    "enable_auto_tool_choice": "it follows from tool_call_parser; leave it out",
    "api_server_count": "one process serves an engine's API; take more `replicas:` for more",
    "task": "vLLM has `runner: pooling` in place of task embed (with `convert: embed` for a generating model)",
    "speculative_disable_by_batch_size": (
        "vLLM took it out; write speculative.num_speculative_tokens_per_batch_size, for example [[1, 8, 4], [9, 256, 0]], or leave it "
        "to `forgegate engines tune`"
    ),
    "spec_decoding_acceptance_method": "vLLM took it out; write speculative.rejection_sample_method: standard or block",
    "typical_acceptance_sampler_posterior_threshold": "vLLM took the typical acceptance sampler out; leave it out",
    "speculative_max_model_len": "vLLM took it out; the draft's length follows the model's",
    "speculative_model_quantization": "vLLM took it out; it reads the draft's quantisation from its config.json",
    "use_v2_block_manager": _GONE,
    "enable_v2_block_manager": _GONE,
    "num_lookahead_slots": "vLLM took it out; it follows from speculative.num_speculative_tokens",
    "num_scheduler_steps": "vLLM took multi-step scheduling out; steps overlap by themselves",
    "multi_step_stream_outputs": "vLLM took multi-step scheduling out; leave it out",
    "swap_space": "vLLM took it out; requests that must give way are computed again",
    "preemption_mode": "vLLM took it out; requests that must give way are computed again",
    "worker_use_ray": 'vLLM took it out; write extra_args: ["--distributed-executor-backend", "ray"]',
    "engine_use_ray": "vLLM took it out; leave it out",
    "tokenizer_pool_size": "vLLM took it out; leave it out",
    "tokenizer_pool_type": "vLLM took it out; leave it out",
    "guided_decoding_backend": 'vLLM renamed it; write extra_args: ["--structured-outputs-config", \'{"backend": "xgrammar"}\']',
    "max_seq_len_to_capture": "vLLM took it out; write compilation.max_cudagraph_capture_size, in tokens",
    "disable_log_requests": "requests are not logged unless --enable-log-requests asks for it; leave it out",
    "enable_reasoning": "it follows from reasoning_parser; leave it out",
    "disable_frontend_multiprocessing": "vLLM took it out; leave it out",
    "long_lora_scaling_factors": "vLLM took long LoRA out; leave it out",
    "lora_extra_vocab_size": "vLLM took it out; adapters do not add tokens",
    "max_prompt_adapters": "vLLM took prompt adapters out; LoRA adapters take their place",
    "enable_prompt_adapter": "vLLM took prompt adapters out; LoRA adapters take their place",
    "rope_scaling": 'vLLM took it out; write extra_args: ["--hf-overrides", \'{"rope_scaling": ...}\']',
}
"""Names that are no option of ours: what to write in their place."""


@dataclass
class Found:
    """A mapping of options in our own spelling; `notes` say what was put elsewhere, `problems` what could not be."""

    mapping: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any) -> None:
        if key in self.mapping:
            self.problems.append(f"{key}: given twice")
        self.mapping.setdefault(key, value)


def translate(mapping: Mapping[str, Any]) -> Found:
    """Options in our own spelling, dashes and all."""
    found, groups = Found(), dict[str, dict[str, Any]]()
    for given, value in mapping.items():
        key = normal(str(given))
        if key in PLACES:
            group, inner = PLACES[key]
            groups.setdefault(group, {})[inner] = value
            found.notes.append(f"{given} is {group}.{inner} here")
        elif key in EXPLAINED:
            found.problems.append(f"{given}: {EXPLAINED[key]}")
        elif key == ENABLE_LORA:
            _put_lora(found, groups, value)
        elif key in GROUPS:
            found.notes.append(f"{given} is {GROUPS[key]} here")
            found.put(GROUPS[key], _from_json(value))
        else:
            found.put(RENAMED.get(key, key), value)
            if key in RENAMED:
                found.notes.append(f"{given} is {RENAMED[key]} here")
    for group, inside in groups.items():
        _merge(found, group, inside)
    return found


def explanation(flag: str) -> str:
    """What to do about a flag that the installed vLLM does not have; empty where nothing is known of it."""
    key = normal(flag)
    if key in PLACES:
        return f"write it under `options:`, as {'.'.join(PLACES[key])}"
    return EXPLAINED.get(key, "")


def unknown(key: str, known: Iterable[str]) -> str:
    """What follows the name of an unknown option."""
    close = difflib.get_close_matches(key, list(known), n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f' (a flag of vLLM that is no option here goes to extra_args: ["--{key.replace("_", "-")}", ...])'


def normal(name: str) -> str:
    """`--max-model-len` as `max_model_len`."""
    return name.removeprefix("--").replace("-", "_").lower()


def _put_lora(found: Found, groups: dict[str, dict[str, Any]], value: Any) -> None:
    if value is True:
        groups.setdefault("lora", {})
        found.notes.append("enable_lora is `lora: {}` here")
    else:
        found.problems.append(f"{ENABLE_LORA}: adapters are served where there is `lora: {{}}`; leave it out otherwise")


def _merge(found: Found, group: str, inside: dict[str, Any]) -> None:
    """Put what belongs into a group beside what the group has."""
    given = found.mapping.get(group)
    if given is not None and not isinstance(given, Mapping):
        return  # said by the schema
    twice = [key for key in inside if given and key in given]
    found.problems += [f"{group}.{key}: given twice" for key in twice]
    merged = {**inside, **(given or {})}
    if group == "speculative" and "method" not in merged:
        merged |= _method(merged)
    found.mapping[group] = merged


def _method(speculative: Mapping[str, Any]) -> dict[str, Any]:
    """What the old flags meant: a model drafts, unless it is called [ngram]."""
    if speculative.get("model") in ("[ngram]", "ngram"):
        return {"method": "ngram", "model": ""}
    return {"method": "draft_model"} if "model" in speculative else {}


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
