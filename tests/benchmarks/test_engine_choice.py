"""What a benchmark's engines are asked for, by their kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.vllm.launch import option_problems
from benchmarks.arguments import Parser
from benchmarks.engine_choice import CHOICES, LLAMACPP, VLLM, Needs, add_options, chosen

NEEDS = Needs(num_streams=32, num_tokens=256, num_adapters=4)


def test_llama_cpp_shares_one_cache_among_all_streams() -> None:
    pool = CHOICES[LLAMACPP].pool("demo", 2, NEEDS)
    assert pool == {
        "engine": "llamacpp", "model": "demo", "replicas": 2,
        "options": {"n_ctx": 8192, "n_seq_max": 32, "max_waiting": 512, "max_adapters": 4},
    }  # fmt: skip


def test_vllm_gets_a_length_for_each_request_and_lora_only_where_it_is_needed() -> None:
    options = CHOICES[VLLM].options(NEEDS)
    assert (options["max_model_len"], options["max_num_seqs"]) == (256, 32)
    assert options["lora"]["max_cpu_loras"] == 4
    assert "lora" not in CHOICES[VLLM].options(Needs(1, 256))


def test_vllm_takes_these_options() -> None:
    assert option_problems(CHOICES[VLLM].options(NEEDS)) == []


def test_options_on_top_go_before() -> None:
    assert CHOICES[VLLM].pool("demo", 1, NEEDS, {"max_model_len": 99})["options"]["max_model_len"] == 99


def test_engines_that_start_one_after_the_other_are_waited_for_longer() -> None:
    assert CHOICES[VLLM].ready_s(2) >= 2 * CHOICES[VLLM].start_s
    assert CHOICES[LLAMACPP].ready_s(1) >= 60


@pytest.mark.parametrize(("words", "python"), [((), None), (("--python", "env/python"), Path("env/python"))])
def test_the_interpreter_is_passed_on(words: tuple[str, ...], python: Path | None) -> None:
    parser = Parser()
    add_options(parser)
    choice = chosen(parser.parse_args(["--engine", "vllm", *words]))
    assert (choice.kind, choice.python) == ("vllm", python)
    pool = choice.pool("demo", 1, NEEDS)
    assert pool.get("python") == (None if python is None else str(python))
