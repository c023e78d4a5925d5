"""vLLM's options: documented, and refused here where vLLM would refuse them a minute after its start."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from backends import optionschema
from backends.optionschema import OptionsError
from backends.vllm.options import LINEAR_MODULES, Lora, Options, Speculative, option_problems
from tests.test_imports import HEAVY, imported_by

DRAFT: dict[str, Any] = {"method": "draft_model", "model": "demo", "num_speculative_tokens": 4}
NGRAM: dict[str, Any] = {"method": "ngram", "num_speculative_tokens": 4}
SUFFIX: dict[str, Any] = {"method": "suffix"}


def test_every_option_is_documented() -> None:
    documented = list(optionschema.entries(Options))
    assert {entry.name for entry in documented if not entry.depth} == {
        field.name for field in dataclasses.fields(Options)
    }
    assert all(entry.doc.endswith(".") for entry in documented)
    assert {entry.name for entry in documented if entry.is_group} == {"compilation", "speculative", "lora"}


def test_options_are_read_without_the_engine() -> None:
    assert not imported_by("backends.vllm.argv") & HEAVY


def test_code_of_models_is_not_run_unless_asked_for() -> None:
    assert Options().trust_remote_code is False


def test_what_others_ask_of_options() -> None:
    options = Options.from_mapping(
        {
            "tensor_parallel_size": 2,
            "data_parallel_size": 3,
            "lora": {"max_loras": 2, "max_cpu_loras": 6},
            "speculative": DRAFT,
        }
    )
    assert options.num_gpus == 6
    assert options.num_adapter_slots == 6
    assert options.refused_by_speculation == ("min_p", "logit_bias")
    assert (options.gpu_share, options.cpu_kv_cache_bytes) == (0.9, 4 << 30)
    plain = Options.from_mapping({"gpu_memory_utilization": 0.3, "cpu_kv_cache_gib": 1})
    assert (plain.gpu_share, plain.cpu_kv_cache_bytes) == (0.3, 1 << 30)
    assert (plain.num_adapter_slots, plain.refused_by_speculation) == (0, ())


def test_an_empty_lora_group_serves_adapters_on_the_linear_layers() -> None:
    options = Options.from_mapping({"lora": {}})
    assert options.lora == Lora(max_loras=4, max_rank=16, target_modules=LINEAR_MODULES)
    assert options.num_adapter_slots == 4


def test_a_schedule_is_checked_when_it_is_put_in() -> None:
    speculative = Speculative(**DRAFT)
    dataclasses.replace(speculative, num_speculative_tokens_per_batch_size=((1, 8, 4), (9, 256, 0)))
    with pytest.raises(OptionsError, match="deeper than num_speculative_tokens"):
        dataclasses.replace(speculative, num_speculative_tokens_per_batch_size=((1, 8, 5),))


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"dtype": "int4"}, "dtype: must be one of auto, half"),
        ({"max_model_len": 0}, "max_model_len: must be -1 or 1 and more, got 0"),
        ({"gpu_memory_utilization": 90}, "gpu_memory_utilization: must be above 0 and at most 1, got 90"),
        ({"gpu_memory_utilization": 0}, "above 0"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size: must be 1 or more"),
        ({"max_num_seqs": 0}, "max_num_seqs: must be 1 or more"),
        ({"cpu_kv_cache_gib": 0}, "cpu_kv_cache_gib: must be 1 or more"),
        ({"seed": -1}, "seed: must be 0 or more"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 32}, "(max_num_seqs: 64), got 32"),
        (
            {"enable_chunked_prefill": False, "max_model_len": 4096, "max_num_batched_tokens": 2048},
            "without chunked prefill it must hold a whole prompt (max_model_len: 4096), got 2048",
        ),
        ({"optimization_level": 4}, "optimization_level: must be 0 to 3"),
        ({"enforce_eager": True, "compilation": {"mode": 3}}, "compilation: enforce_eager compiles nothing"),
        ({"enforce_eager": True, "optimization_level": 2}, "optimization_level: enforce_eager compiles nothing"),
        ({"compilation": {"mode": 4}}, "compilation.mode: must be 0 to 3"),
        ({"compilation": {"cudagraph_mode": "SOME"}}, "compilation.cudagraph_mode: must be one of NONE, PIECEWISE"),
        ({"compilation": {"cudagraph_capture_sizes": [0, 8]}}, "compilation.cudagraph_capture_sizes: must all be"),
        (
            {"compilation": {"cudagraph_capture_sizes": [1, 8], "max_cudagraph_capture_size": 16}},
            "must be the largest of cudagraph_capture_sizes",
        ),
        ({"compilation": {"cudagraph_mode": "NONE", "cudagraph_capture_sizes": [1]}}, "no graphs are captured"),
        ({"runner": "draft"}, "runner: must be one of auto, generate, pooling"),
        ({"convert": "embed"}, "convert: embed is for runner: pooling"),
        ({"runner": "pooling", "lora": {}}, "lora: only where text is generated"),
        ({"runner": "pooling", "speculative": NGRAM}, "speculative: only where text is generated"),
        ({"chat_template": "/nowhere.jinja"}, "chat_template: no such file: /nowhere.jinja"),
        ({"tokenizer": "/nowhere"}, "tokenizer: no such folder: /nowhere"),
        ({"quantization": "--host"}, "quantization: must not begin with a dash"),
        (
            {"lora": {"max_rank": 24}},
            "lora.max_rank: vLLM has slots of rank 1, 8, 16, 32, 64, 128, 256, 320, 512 only, got 24; take 32",
        ),
        ({"lora": {"max_rank": 1000}}, "take 512"),
        ({"lora": {"max_loras": 0}}, "lora.max_loras: must be 1 or more"),
        ({"lora": {"max_loras": 4, "max_cpu_loras": 2}}, "lora.max_cpu_loras: must be at least max_loras (4), got 2"),
        ({"lora": {"target_modules": []}}, "lora.target_modules: must name one layer or more"),
        ({"lora": {"target_modules": ["--host"]}}, "not the name of a layer"),
        ({"lora": {"dtype": "int8"}}, "lora.dtype: must be one of auto"),
        ({"speculative": {}}, "speculative.method: must be one of ngram, draft_model, eagle, eagle3, mtp, suffix"),
        ({"speculative": {**NGRAM, "schedule": "sometimes"}}, "speculative.schedule: must be one of measured, always"),
        ({"speculative": {"method": "eagle3", "num_speculative_tokens": 2}}, "speculative.model: eagle3 needs one"),
        ({"speculative": {**NGRAM, "model": "demo"}}, "speculative.model: ngram proposes without one"),
        ({"speculative": {"method": "ngram"}}, "speculative.num_speculative_tokens: ngram needs it"),
        ({"speculative": {**NGRAM, "num_speculative_tokens": 0}}, "num_speculative_tokens: must be 1 or more, got 0"),
        ({"speculative": {**NGRAM, "prompt_lookup_min": 3, "prompt_lookup_max": 2}}, "at most prompt_lookup_max (2)"),
        ({"speculative": {**NGRAM, "prompt_lookup_max": 0}}, "speculative.prompt_lookup_max: must be 1 or more"),
        ({"speculative": {**DRAFT, "prompt_lookup_max": 2}}, "prompt_lookup_max: only with ngram, not draft_model"),
        ({"speculative": {**NGRAM, "draft_tensor_parallel_size": 1}}, "draft_tensor_parallel_size: ngram has no draft"),
        ({"speculative": {**DRAFT, "draft_tensor_parallel_size": 2}}, "must be 1 or tensor_parallel_size (1), got 2"),
        ({"speculative": {**DRAFT, "draft_sample_method": "wild"}}, "draft_sample_method: must be one of greedy"),
        ({"speculative": {**NGRAM, "draft_sample_method": "greedy"}}, "draft_sample_method: ngram has no draft"),
        ({"speculative": {**NGRAM, "use_heterogeneous_vocab": True}}, "only with draft_model, not ngram"),
        (
            {"speculative": {**DRAFT, "use_heterogeneous_vocab": True, "draft_sample_method": "probabilistic"}},
            "only with draft_sample_method: greedy",
        ),
        ({"speculative": {**NGRAM, "parallel_drafting": True}}, "only with draft_model, eagle, eagle3, not ngram"),
        ({"speculative": {**DRAFT, "rejection_sample_method": "coin"}}, "rejection_sample_method: must be one of"),
        ({"speculative": {**DRAFT, "rejection_sample_method": "synthetic"}}, "synthetic needs them"),
        (
            {"speculative": {**DRAFT, "synthetic_acceptance_rates": [0.7, 0.5, 0.3, 0.2]}},
            "only with rejection_sample_method: synthetic",
        ),
        *(
            (
                {"speculative": {**DRAFT, "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": rates}},
                f"speculative.synthetic_acceptance_rates: must {words}",
            )
            for rates, words in (
                ([0.5], "be 4 numbers, one per draft token, got 0.5"),
                ([1.5, 0.5, 0.2, 0.1], "be 0 to 1"),
                ([0.5, 0.6, 0.2, 0.1], "not rise from one token to the next"),
            )
        ),
        *(
            ({"speculative": {**DRAFT, "num_speculative_tokens_per_batch_size": rows}}, words)
            for rows, words in (
                ([[2, 8, 4]], "the first row must begin at batch size 1, got [2, 8, 4]"),
                ([[1, 8, 4], [8, 16, 2]], "[8, 16, 2] begins at or before 8"),
                ([[1, 8, 4], [12, 10, 2]], "[12, 10, 2] ends before it begins"),
                ([[1, 8, -1]], "[1, 8, -1] has a depth below 0"),
                ([[1, 8, 9]], "[1, 8, 9] is deeper than num_speculative_tokens (4)"),
                ([[1, 8]], "expected a list of lists of 3 whole numbers each"),
            )
        ),
        (
            {"data_parallel_size": 2, "speculative": {**DRAFT, "num_speculative_tokens_per_batch_size": [[1, 8, 4]]}},
            "vLLM takes no notice of it with data_parallel_size above 1",
        ),
        ({"speculative": {**SUFFIX, "suffix_decoding_max_tree_depth": 0}}, "max_tree_depth: must be 1 or more"),
        ({"speculative": {**SUFFIX, "suffix_decoding_min_token_prob": 2}}, "min_token_prob: must be 0 to 1"),
        ({"speculative": {**NGRAM, "suffix_decoding_max_spec_factor": 1}}, "max_spec_factor: only with suffix"),
        (
            {"lora": {}, "speculative": DRAFT, "max_num_seqs": 64, "max_num_batched_tokens": 256},
            "max_num_seqs x (num_speculative_tokens + 1) = 320, got 256",
        ),
    ],
)
def test_mistakes_are_named(mapping: dict[str, Any], problem: str) -> None:
    problems = option_problems(mapping)
    assert len(problems) == 1, problems
    assert problem in problems[0]


@pytest.mark.parametrize(
    "mapping",
    [
        {"speculative": {"method": "mtp"}},
        {"speculative": SUFFIX},
        {"speculative": {**NGRAM, "num_speculative_tokens_per_batch_size": [[1, 16, 4], [32, 128, 0]]}},
        {"tensor_parallel_size": 2, "speculative": {**DRAFT, "draft_tensor_parallel_size": 2}},
        {"max_model_len": -1, "optimization_level": 0, "enforce_eager": True},
        {"runner": "pooling", "convert": "embed"},
    ],
)
def test_what_vllm_takes_is_taken(mapping: dict[str, Any]) -> None:
    assert option_problems(mapping) == []


def test_all_mistakes_at_once() -> None:
    assert len(option_problems({"dtype": "int4", "tpyo": 1, "lora": {"max_rank": 9}, "host": "0.0.0.0"})) == 4


def test_a_template_may_be_given_from_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert option_problems({"chat_template": "~/chat.jinja"}) == []
