"""Every option reaches the command line or the environment, on both versions; what a device or version lacks is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends import optionschema
from backends.errors import BadSpec
from backends.vllm.argv import Serving, vllm_argv, vllm_env
from backends.vllm.installed import Flag, split
from backends.vllm.options import LINEAR_MODULES, Options
from tests.backends.vllm.recorded import VERSIONS, installed

SERVING = Serving(model="/models/demo", served_name="demo", port=9000)
TEMPLATE = str(Path(__file__))
FOLDER = str(Path(__file__).parent)
DRAFT: dict[str, Any] = {"method": "draft_model", "model": "/models/draft", "num_speculative_tokens": 4}
SYNTHETIC: dict[str, Any] = {
    **DRAFT,
    "rejection_sample_method": "synthetic",
    "synthetic_acceptance_rates": [0.7, 0.5, 0.3, 0.2],
}
SUFFIX: dict[str, Any] = {"method": "suffix"}
NGRAM: dict[str, Any] = {"method": "ngram", "num_speculative_tokens": 4}
SPECULATIVE, COMPILATION = "--speculative-config", "--compilation-config"

PLAIN: dict[str, tuple[Any, list[str]]] = {
    "dtype": ("float16", ["--dtype", "float16"]),
    "quantization": ("awq", ["--quantization", "awq"]),
    "max_model_len": (4096, ["--max-model-len", "4096"]),
    "gpu_memory_utilization": (0.3, ["--gpu-memory-utilization", "0.3"]),
    "tensor_parallel_size": (2, ["--tensor-parallel-size", "2"]),
    "pipeline_parallel_size": (2, ["--pipeline-parallel-size", "2"]),
    "data_parallel_size": (2, ["--data-parallel-size", "2"]),
    "max_num_seqs": (64, ["--max-num-seqs", "64"]),
    "max_num_batched_tokens": (8192, ["--max-num-batched-tokens", "8192"]),
    "enable_prefix_caching": (False, ["--no-enable-prefix-caching"]),
    "enable_chunked_prefill": (True, ["--enable-chunked-prefill"]),
    "kv_cache_dtype": ("fp8", ["--kv-cache-dtype", "fp8"]),
    "attention_backend": ("FLASH_ATTN", ["--attention-backend", "FLASH_ATTN"]),
    "enforce_eager": (True, ["--enforce-eager"]),
    "optimization_level": (0, ["--optimization-level", "0"]),
    "sleep_mode": (True, ["--enable-sleep-mode"]),
    "chat_template": (TEMPLATE, ["--chat-template", TEMPLATE]),
    "tool_call_parser": ("hermes", ["--tool-call-parser", "hermes", "--enable-auto-tool-choice"]),
    "reasoning_parser": ("qwen3", ["--reasoning-parser", "qwen3"]),
    "trust_remote_code": (True, ["--trust-remote-code"]),
    "seed": (7, ["--seed", "7"]),
    "load_format": ("safetensors", ["--load-format", "safetensors"]),
    "tokenizer": (FOLDER, ["--tokenizer", FOLDER]),
    "runner": ("pooling", ["--runner", "pooling"]),
    "convert": ("none", ["--convert", "none"]),
    "extra_args": (["--block-size", "32", "--async-scheduling"], ["--block-size", "32", "--async-scheduling"]),
}
LORA: dict[str, tuple[Any, list[str]]] = {
    "max_loras": (2, ["--enable-lora", "--max-loras", "2"]),
    "max_rank": (64, ["--max-lora-rank", "64"]),
    "max_cpu_loras": (9, ["--max-cpu-loras", "9"]),
    "target_modules": (["q_proj", "v_proj"], ["--lora-target-modules", "q_proj", "v_proj"]),
    "fully_sharded": (True, ["--fully-sharded-loras"]),
    "dtype": ("bfloat16", ["--lora-dtype", "bfloat16"]),
}
JSON: dict[str, tuple[dict[str, Any], str, Any]] = {
    "speculative.method": ({"speculative": NGRAM}, SPECULATIVE, "ngram"),
    "speculative.model": ({"speculative": DRAFT}, SPECULATIVE, "/models/draft"),
    "speculative.num_speculative_tokens": ({"speculative": NGRAM}, SPECULATIVE, 4),
    "speculative.num_speculative_tokens_per_batch_size": (
        {"speculative": {**NGRAM, "num_speculative_tokens_per_batch_size": [[1, 8, 4], [9, 256, 0]]}},
        SPECULATIVE,
        [[1, 8, 4], [9, 256, 0]],
    ),
    "speculative.prompt_lookup_max": ({"speculative": {**NGRAM, "prompt_lookup_max": 3}}, SPECULATIVE, 3),
    "speculative.prompt_lookup_min": ({"speculative": {**NGRAM, "prompt_lookup_min": 2}}, SPECULATIVE, 2),
    "speculative.draft_tensor_parallel_size": (
        {"speculative": {**DRAFT, "draft_tensor_parallel_size": 1}},
        SPECULATIVE,
        1,
    ),
    "speculative.draft_sample_method": (
        {"speculative": {**DRAFT, "draft_sample_method": "probabilistic"}},
        SPECULATIVE,
        "probabilistic",
    ),
    "speculative.use_heterogeneous_vocab": (
        {"speculative": {**DRAFT, "use_heterogeneous_vocab": True}},
        SPECULATIVE,
        True,
    ),
    "speculative.parallel_drafting": ({"speculative": {**DRAFT, "parallel_drafting": True}}, SPECULATIVE, True),
    "speculative.rejection_sample_method": ({"speculative": SYNTHETIC}, SPECULATIVE, "synthetic"),
    "speculative.synthetic_acceptance_rates": ({"speculative": SYNTHETIC}, SPECULATIVE, [0.7, 0.5, 0.3, 0.2]),
    "speculative.suffix_decoding_max_tree_depth": (
        {"speculative": {**SUFFIX, "suffix_decoding_max_tree_depth": 12}},
        SPECULATIVE,
        12,
    ),
    "speculative.suffix_decoding_max_cached_requests": (
        {"speculative": {**SUFFIX, "suffix_decoding_max_cached_requests": 0}},
        SPECULATIVE,
        0,
    ),
    "speculative.suffix_decoding_max_spec_factor": (
        {"speculative": {**SUFFIX, "suffix_decoding_max_spec_factor": 2.5}},
        SPECULATIVE,
        2.5,
    ),
    "speculative.suffix_decoding_min_token_prob": (
        {"speculative": {**SUFFIX, "suffix_decoding_min_token_prob": 0.2}},
        SPECULATIVE,
        0.2,
    ),
    "compilation.mode": ({"compilation": {"mode": 0}}, COMPILATION, 0),
    "compilation.cudagraph_mode": ({"compilation": {"cudagraph_mode": "PIECEWISE"}}, COMPILATION, "PIECEWISE"),
    "compilation.cudagraph_capture_sizes": ({"compilation": {"cudagraph_capture_sizes": [1, 8]}}, COMPILATION, [1, 8]),
    "compilation.max_cudagraph_capture_size": (
        {"compilation": {"max_cudagraph_capture_size": 64}},
        COMPILATION,
        64,
    ),
}
ENVIRONMENT = {"cpu_kv_cache_gib"}
NOT_VLLMS = {"speculative.schedule"}
"""What forgegate itself does something about."""


def paths() -> Iterator[str]:
    group = ""
    for entry in optionschema.entries(Options):
        if entry.is_group:
            group = entry.name
        else:
            yield f"{group}.{entry.name}" if entry.depth else entry.name


def argv_of(mapping: dict[str, Any], version: str = "0.32", device: str = "cuda") -> tuple[str, ...]:
    found = installed(version, device, modules=("arctic_inference",))
    return vllm_argv(Options.from_mapping(mapping), SERVING, found)


def holds(argv: tuple[str, ...], words: list[str]) -> bool:
    """Whether each flag of `words` is in `argv`, once, with the same values."""
    found = list(split(argv))
    return all(found.count(part) == 1 for part in split(words))


def refused(mapping: dict[str, Any], version: str = "0.32", device: str = "cuda") -> list[str]:
    with pytest.raises(BadSpec) as caught:
        vllm_argv(Options.from_mapping(mapping), SERVING, installed(version, device))
    return caught.value.problems


def test_no_option_is_forgotten() -> None:
    tested = {*PLAIN, *(f"lora.{name}" for name in LORA), *JSON, *ENVIRONMENT, *NOT_VLLMS}
    assert tested == set(paths())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", PLAIN)
def test_an_option_is_a_flag(name: str, version: str) -> None:
    value, words = PLAIN[name]
    assert holds(argv_of({name: value}, version), words)
    assert not holds(argv_of({}, version), words)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", LORA)
def test_an_option_of_adapters_is_a_flag(name: str, version: str) -> None:
    value, words = LORA[name]
    assert holds(argv_of({"lora": {name: value}}, version), words)
    assert not holds(argv_of({"lora": {}}, version), words)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", JSON)
def test_an_option_of_a_group_is_in_its_json(path: str, version: str) -> None:
    mapping, flag, expected = JSON[path]
    argv = argv_of(mapping, version)
    content = json.loads(argv[argv.index(flag) + 1])
    assert content[path.partition(".")[2]] == expected
    assert flag not in argv_of({}, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_without_options(version: str) -> None:
    assert argv_of({}, version) == (
        "--model", "/models/demo", "--served-model-name", "demo", "--host", "127.0.0.1", "--port", "9000",
        "--disable-uvicorn-access-log", "--shutdown-timeout", "3600", "--gpu-memory-utilization", "0.9",
    )  # fmt: skip
    assert "--gpu-memory-utilization" not in argv_of({}, version, "cpu")


def test_the_guard_and_the_place_of_the_draft_are_the_launchs() -> None:
    serving = dataclasses.replace(SERVING, middleware=("guard.Guard", "other.Other"), draft="/elsewhere/draft")
    argv = vllm_argv(Options.from_mapping({"speculative": DRAFT}), serving, installed())
    assert [argv[place + 1] for place, word in enumerate(argv) if word == "--middleware"] == [
        "guard.Guard",
        "other.Other",
    ]
    assert json.loads(argv[argv.index(SPECULATIVE) + 1]) == {
        "method": "draft_model",
        "model": "/elsewhere/draft",
        "num_speculative_tokens": 4,
    }


def test_adapters_are_always_kept_to_named_layers_and_slots() -> None:
    argv = argv_of({"lora": {"max_loras": 2}})
    assert holds(argv, ["--lora-target-modules", *LINEAR_MODULES, "--max-cpu-loras", "2", "--max-lora-rank", "16"])


def test_on_the_cpu_one_slot_stays_empty() -> None:
    """There the base's requests, among those of adapters, are computed with the last one."""
    argv = argv_of({"lora": {"max_loras": 2, "max_cpu_loras": 3}}, device="cpu")
    assert holds(argv, ["--max-loras", "4", "--max-cpu-loras", "4"])


@pytest.mark.parametrize(("lora", "num_slots"), [({"max_loras": 2}, "3"), ({"max_loras": 2, "max_cpu_loras": 6}, "7")])
def test_on_the_cpu_one_slot_of_adapters_stays_empty(lora: dict[str, Any], num_slots: str) -> None:
    argv = argv_of({"lora": lora}, device="cpu")
    assert holds(argv, ["--max-loras", num_slots, "--max-cpu-loras", num_slots])


def test_paths_hold_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    monkeypatch.chdir(tmp_path)
    assert holds(argv_of({"chat_template": "chat.jinja"}), ["--chat-template", str(tmp_path / "chat.jinja")])


def test_the_environment() -> None:
    everything = Options.from_mapping({"lora": {}, "sleep_mode": True})
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    assert vllm_env(Options(), installed()) == quiet
    assert vllm_env(everything, installed()) == {
        **quiet,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_SERVER_DEV_MODE": "1",
    }
    on_cpu = installed(device="cpu")
    assert vllm_env(Options(), on_cpu)["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert vllm_env(Options(cpu_kv_cache_gib=1), on_cpu)["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"gpu_memory_utilization": 0.5}, "gpu_memory_utilization: this vLLM runs on the CPU; write cpu_kv_cache_gib"),
        ({"sleep_mode": True}, "sleep_mode: vLLM on the CPU cannot sleep"),
        ({"attention_backend": "FLASH_ATTN"}, "attention_backend: FLASH_ATTN is for GPUs"),
        (
            {"compilation": {"cudagraph_mode": "FULL"}},
            "compilation.cudagraph_mode: there are no CUDA graphs on the CPU",
        ),
        ({"compilation": {"cudagraph_capture_sizes": [8]}}, "compilation.cudagraph_capture_sizes: there are no CUDA"),
        ({"compilation": {"max_cudagraph_capture_size": 8}}, "compilation.max_cudagraph_capture_size: there are no"),
        ({"compilation": {"mode": 3}, "lora": {}}, "compilation.mode: vLLM on the CPU compiles nothing with adapters"),
        ({"lora": {"target_modules": ["q_proj", "lm_head"]}}, "lora.target_modules: without lm_head"),
        ({"extra_args": ["--kv-cache-memory-bytes", "1G"]}, "write cpu_kv_cache_gib"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused(mapping: dict[str, Any], problem: str) -> None:
    (said,) = refused(mapping, device="cpu")
    assert problem in said


def test_a_gpu_takes_adapters_of_the_head() -> None:
    argv = argv_of({"lora": {"target_modules": ["q_proj", "lm_head"]}})
    assert holds(argv, ["--lora-target-modules", "q_proj", "lm_head"])


def test_what_a_cpu_can_do_is_taken() -> None:
    assert holds(argv_of({"attention_backend": "CPU_ATTN"}, device="cpu"), ["--attention-backend", "CPU_ATTN"])
    assert COMPILATION in argv_of({"compilation": {"mode": 2}}, device="cpu")


@pytest.mark.parametrize(("device", "most"), [("cpu", 15), ("cuda", 7)])
def test_adapters_beside_deep_speculation_need_a_size(device: str, most: int) -> None:
    deeper = {"lora": {}, "speculative": {**DRAFT, "num_speculative_tokens": most + 1}}
    argv_of({"lora": {}, "speculative": {**DRAFT, "num_speculative_tokens": most}}, device=device)
    (said,) = refused(deeper, device=device)
    assert said.startswith(f"max_num_batched_tokens: with adapters and {most + 1} draft tokens")
    assert f"max_num_seqs x {most + 2} or more" in said
    argv_of({**deeper, "max_num_seqs": 16, "max_num_batched_tokens": 16 * (most + 2)}, device=device)


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"cpu_kv_cache_gib": 1}, "cpu_kv_cache_gib: this vLLM runs on GPUs; write gpu_memory_utilization"),
        ({"quantization": "awqq"}, "quantization: must be one of auto_awq, auto_gptq, awq"),
        ({"quantization": "awqq"}, "got 'awqq'; did you mean 'awq'?"),
        ({"kv_cache_dtype": "fp4"}, "kv_cache_dtype: must be one of auto"),
        ({"attention_backend": "XFORMERS"}, "attention_backend: must be one of"),
        ({"tool_call_parser": "hermse"}, "did you mean 'hermes'?"),
        ({"reasoning_parser": "qwen9"}, "reasoning_parser: must be one of"),
        ({"load_format": "gguf"}, "load_format: must be one of"),
        ({"speculative": {"method": "suffix"}}, "suffix needs Arctic Inference in the engine's environment"),
    ],
)
def test_values_are_those_of_the_installed_version(mapping: dict[str, Any], problem: str) -> None:
    (said,) = refused(mapping)
    assert problem in said


def test_versions_differ_in_the_values_they_know() -> None:
    assert holds(argv_of({"quantization": "bitsandbytes"}, "0.26"), ["--quantization", "bitsandbytes"])
    assert "got 'bitsandbytes'" in refused({"quantization": "bitsandbytes"}, "0.32")[0]


def test_a_plugin_may_bring_parsers() -> None:
    argv = argv_of({"tool_call_parser": "mine", "extra_args": ["--tool-parser-plugin", "/plugins/mine.py"]})
    assert holds(argv, ["--tool-call-parser", "mine", "--tool-parser-plugin", "/plugins/mine.py"])


def test_flags_and_settings_that_a_version_lacks_are_named() -> None:
    old = installed("0.26")
    poor = dataclasses.replace(
        old,
        version="0.25.1",
        flags={name: flag for name, flag in old.flags.items() if name != "--kv-cache-dtype"}
        | {"--spec-method": Flag(("--spec-method",), choices=("ngram",))},
        keys={SPECULATIVE: ("method", "model", "num_speculative_tokens"), COMPILATION: ("level",)},
    )
    options = Options.from_mapping(
        {"kv_cache_dtype": "fp8", "compilation": {"mode": 3}, "speculative": {**DRAFT, "use_heterogeneous_vocab": True}}
    )
    with pytest.raises(BadSpec) as caught:
        vllm_argv(options, SERVING, poor)
    assert caught.value.problems == [
        "compilation.mode: vLLM 0.25.1 has no such setting",
        "speculative.use_heterogeneous_vocab: vLLM 0.25.1 has no such setting",
        "speculative.method: vLLM 0.25.1 has no draft_model",
        "kv_cache_dtype: vLLM 0.25.1 has no such flag (did you mean --mamba-cache-dtype?)",
    ]


def test_all_problems_come_at_once() -> None:
    mapping = {"quantization": "x", "cpu_kv_cache_gib": 1, "extra_args": ["--port", "1"]}
    assert len(refused(mapping)) == 3
