"""Names of tutorials and of older versions: put where they belong, or explained."""

from __future__ import annotations

from typing import Any

import pytest

from backends.optionschema import OptionsError
from backends.vllm import spellings
from backends.vllm.options import Options, Speculative, option_problems
from tests.backends.vllm.recorded import VERSIONS, installed

ARTICLE = {
    "speculative-model": "/models/Llama-3.1-8B-Instruct",
    "num-speculative-tokens": 5,
    "tensor-parallel-size": 2,
    "gpu-memory-utilization": 0.9,
}
"""What tutorials of vLLM 0.5 pass on its command line."""


@pytest.mark.parametrize("form", ["{}", "--{}"])
def test_the_old_way_to_speculate_is_translated(form: str) -> None:
    mapping = {form.format(key): value for key, value in ARTICLE.items()}
    assert Options.from_mapping(mapping) == Options(
        tensor_parallel_size=2,
        gpu_memory_utilization=0.9,
        speculative=Speculative("draft_model", "/models/Llama-3.1-8B-Instruct", 5),
    )
    assert spellings.translate(mapping).notes == [
        f"{form.format('speculative-model')} is speculative.model here",
        f"{form.format('num-speculative-tokens')} is speculative.num_speculative_tokens here",
    ]


@pytest.mark.parametrize(
    ("mapping", "meant"),
    [
        (
            {"speculative_model": "[ngram]", "num_speculative_tokens": 4, "ngram_prompt_lookup_max": 3},
            {"speculative": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}},
        ),
        (
            {"spec_method": "eagle3", "spec_model": "/eagle", "spec_tokens": 2},
            {"speculative": {"method": "eagle3", "model": "/eagle", "num_speculative_tokens": 2}},
        ),
        (
            {"speculative_config": '{"method": "ngram", "num_speculative_tokens": 4}'},
            {"speculative": {"method": "ngram", "num_speculative_tokens": 4}},
        ),
        (
            {"speculative": {"method": "ngram"}, "num_speculative_tokens": 4},
            {"speculative": {"method": "ngram", "num_speculative_tokens": 4}},
        ),
        (
            {"enable_lora": True, "max_loras": 2, "max_lora_rank": 64, "max_cpu_loras": 8},
            {"lora": {"max_loras": 2, "max_rank": 64, "max_cpu_loras": 8}},
        ),
        ({"enable-lora": True}, {"lora": {}}),
        ({"max_lora_rank": 32}, {"lora": {"max_rank": 32}}),
        ({"enable_sleep_mode": True}, {"sleep_mode": True}),
        ({"VLLM_CPU_KVCACHE_SPACE": 2}, {"cpu_kv_cache_gib": 2}),
        ({"compilation_config": {"mode": 2}}, {"compilation": {"mode": 2}}),
        ({"cudagraph_capture_sizes": [1, 2]}, {"compilation": {"cudagraph_capture_sizes": [1, 2]}}),
    ],
)
def test_other_names_mean_ours(mapping: dict[str, Any], meant: dict[str, Any]) -> None:
    assert Options.from_mapping(mapping) == Options.from_mapping(meant)
    assert spellings.translate(mapping).notes
    assert spellings.translate(meant).notes == []


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"use_v2_block_manager": True}, "use_v2_block_manager: vLLM took it out, and does this always; leave it out"),
        ({"swap_space": 4}, "swap_space: vLLM took it out; requests that must give way are computed again"),
        ({"task": "embed"}, "task: vLLM has `runner: pooling`"),
        ({"speculative_disable_by_batch_size": 8}, "num_speculative_tokens_per_batch_size, for example [[1, 8, 4]"),
        ({"host": "0.0.0.0"}, "host: forgegate sets it itself"),
        ({"model": "x"}, "model: it is a key of the pool"),
        ({"revision": "main"}, "ORG/NAME@REVISION"),
        ({"enable_lora": False}, "enable_lora: adapters are served where there is `lora: {}`"),
        (
            {"speculative": {"model": "x", "method": "eagle"}, "spec_model": "y", "spec_tokens": 2},
            "speculative.model: given twice",
        ),
        ({"max-num-seqs": 4, "max_num_seqs": 8}, "max_num_seqs: given twice"),
        ({"speculative_config": "ngram"}, "speculative: expected a group of options, got 'ngram'"),
        ({"max_num_seq": 4}, "unknown option 'max_num_seq' (did you mean 'max_num_seqs'?)"),
        ({"block_size": 32}, 'a flag of vLLM that is no option here goes to extra_args: ["--block-size", ...]'),
    ],
)
def test_what_has_no_place_is_explained(mapping: dict[str, Any], problem: str) -> None:
    problems = option_problems(mapping)
    assert len(problems) == 1, problems
    assert problem in problems[0]


def test_explanations_come_beside_other_problems() -> None:
    with pytest.raises(OptionsError) as caught:
        Options.from_mapping({"swap_space": 4, "dtype": "int4", "tpyo": 1})
    assert len(caught.value.problems) == 3


def test_what_is_said_to_be_taken_out_is_in_no_version() -> None:
    known = {spellings.normal(name) for version in VERSIONS for name in installed(version).flags}
    gone = {key for key, words in spellings.EXPLAINED.items() if "took it out" in words or "renamed" in words}
    assert gone
    assert not gone & known


def test_no_name_has_two_meanings() -> None:
    names = [
        *spellings.PLACES,
        *spellings.RENAMED,
        *spellings.GROUPS,
        *spellings.EXPLAINED,
        *Options.__dataclass_fields__,
    ]
    assert len(names) == len(set(names))
