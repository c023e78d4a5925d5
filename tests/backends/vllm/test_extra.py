"""Flags given word by word: the installed parser's own, none that is forgegate's, none that is an option."""

from __future__ import annotations

import pytest

from backends.vllm import extra
from backends.vllm.installed import Installed
from tests.backends.vllm.recorded import VERSIONS, installed


@pytest.fixture(scope="module", params=VERSIONS)
def vllm(request: pytest.FixtureRequest) -> Installed:
    return installed(request.param)


def said(words: str, vllm: Installed) -> list[str]:
    return list(extra.problems(words.split(), vllm))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--block-size 32",
        "--block_size=32",
        "--no-async-scheduling",
        "--hf-overrides.rope_scaling.type yarn --hf-overrides.max_position_embeddings 8192",
        "--override-generation-config {}",
        "--allowed-media-domains a.example b.example",
        "--scheduling-policy priority",
    ],
)
def test_flags_of_the_installed_version_are_taken(words: str, vllm: Installed) -> None:
    assert said(words, vllm) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--host 0.0.0.0", "--host: forgegate chooses where an engine listens"),
        ("--port=1", "--port: forgegate chooses"),
        ("--uds /x", "--uds: forgegate chooses"),
        ("--model x", "--model: it is the pool's `model:`"),
        ("--served_model_name x", "--served_model_name: it is the model's `name:`"),
        ("--api-key x", "--api-key: engines answer to forgegate alone"),
        ("--ssl-keyfile x", "--ssl-keyfile: engines answer to forgegate alone"),
        ("--middleware x", "--middleware: forgegate's own guard is there"),
        ("--api-server-count 4", "--api-server-count: one process serves an engine's API"),
        ("-asc 4", "-asc: one process serves an engine's API"),
        ("--uvicorn-log-level error", "--uvicorn-log-level: forgegate reads an engine's log"),
        ("--disable-log-stats", "--disable-log-stats: forgegate reads load"),
        ("--config my.yaml", "--config: it would hide flags in a file"),
        ("--help", "--help: it prints help and ends"),
        ("-h", "-h: it prints help and ends"),
        ("--nnodes 2", "--nnodes: forgegate starts engines on this machine only"),
        ("--lora-modules a=b", "--lora-modules: adapters are published"),
        ("--enable-lora", "--enable-lora: write it under `options:`, as lora"),
        ("--no-enable-lora", "--no-enable-lora: write it under `options:`, as lora"),
        ("--max-loras 3", "--max-loras: write it under `options:`, as lora.max_loras"),
        ("-tp 2", "-tp: write it under `options:`, as tensor_parallel_size"),
        ("--trust-remote-code", "--trust-remote-code: write it under `options:`"),
        ("--speculative-config.method ngram", "write it under `options:`, as speculative"),
        ("-sc {}", "-sc: write it under `options:`, as speculative"),
        ("--spec-tokens 3", "as speculative.num_speculative_tokens"),
        ("-O3", "-O3: write it under `options:`, as optimization_level"),
        ("--speculative-model x", "--speculative-model: write it under `options:`, as speculative.model"),
        ("--num-speculative-tokens 5", "as speculative.num_speculative_tokens"),
        ("--use-v2-block-manager", "--use-v2-block-manager: vLLM took it out, and does this always; leave it out"),
        ("--blok-size 3", "has no such flag (did you mean --block-size?)"),
        ("--bloc 3", "has no such flag"),
        ("--block-size many", "--block-size: needs a whole number, got 'many'"),
        ("--block-size", "--block-size: needs a value"),
        ("--block-size 1 2", "--block-size: takes one value, got 1 2"),
        ("--async-scheduling yes", "--async-scheduling: takes no value, got yes"),
        ("--scheduling-policy lottery", "--scheduling-policy: must be one of fcfs, priority, got 'lottery'"),
        ("--override-generation-config {", "--override-generation-config: needs JSON, got '{'"),
        ("--hf-overrides.x", "--hf-overrides.x: needs a value"),
        ("stray --block-size 32", "'stray' follows no flag"),
        ("--block-size 16 --block_size 32", "--block_size: given twice"),
    ],
)
def test_other_words_are_refused_with_the_reason(words: str, problem: str, vllm: Installed) -> None:
    (found,) = said(words, vllm)
    assert found.startswith("extra_args: ")
    assert problem in found


def test_a_flag_and_its_value_are_two_words(vllm: Installed) -> None:
    (found,) = extra.problems(["--block-size 32"], vllm)
    assert found == 'extra_args: --block-size 32: write each word apart: ["--block-size", "32"]'


def test_every_refused_flag_is_one_of_some_version() -> None:
    known = {name for version in VERSIONS for name in installed(version).flags}
    assert set(extra.RESERVED) <= known
    assert set(extra.ON_CPU) <= known
