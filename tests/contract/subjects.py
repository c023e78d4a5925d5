"""Who is under contract: two fakes over HTTP, our llama.cpp engine, and real vLLM as it is, with n-grams and with a draft model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Places, PoolSpec
from backends.demo import DRAFT_DIR
from backends.registry import build
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from tests.contract.engines import MODEL, Loop
from tests.processes import stub_python, write_gguf
from tests.vllm_environment import MISSING, Starts, vllm_python

NUM_SLOTS = 2
"""Adapters that an engine holds."""
MOCK_KEY = "mock-secret"
LLAMACPP = {"n_ctx": 8192, "n_ctx_seq": 2048, "n_seq_max": 8, "n_threads": 1, "max_adapters": NUM_SLOTS}
VLLM: Mapping[str, Any] = {
    "enforce_eager": True,
    "cpu_kv_cache_gib": 1,
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "tool_call_parser": "hermes",
    "lora": {"max_loras": NUM_SLOTS, "max_rank": 16},
    # Where whitespace between JSON's tokens is free, the demo model likes to write nothing else.
    "extra_args": ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'],
}
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
DRAFT = {"method": "draft_model", "model": str(DRAFT_DIR), "num_speculative_tokens": 3}


@dataclass(frozen=True)
class Subject:
    name: str
    build: Callable[[Path, Starts], AbstractContextManager[Backend]]
    """Its backend, with a folder for what that keeps; starts of vLLM are counted."""
    has_model: bool = True
    """Its answers are a model's; a fake makes them up, so that what depends on a model is not asked of it."""
    marks: tuple[pytest.MarkDecorator, ...] = ()


def places(folder: Path) -> Places:
    return Places(models_dir=folder / "models", envs_dir=folder / "envs")


@contextmanager
def mock(folder: Path, starts: Starts) -> Iterator[Backend]:
    """`forgegate bench mock`, as an engine that somebody else runs."""
    loop, engine = Loop(), MockEngine(Behaviour(ttft_ms=2, itl_ms=2), models=(MODEL,), secret=MOCK_KEY)
    try:
        loop.run(engine.start())
        spec = PoolSpec("remote", MODEL, base_url=f"{engine.url}/v1", api_key=MOCK_KEY)
        yield build(spec, places(folder))
    finally:
        loop.run(engine.stop())
        loop.close()


@contextmanager
def stub(folder: Path, starts: Starts) -> Iterator[Backend]:
    gguf, python = write_gguf(folder / "stub.gguf"), stub_python(folder)
    yield build(PoolSpec("llamacpp", MODEL, model=str(gguf), python=str(python)), places(folder))


@contextmanager
def llamacpp(folder: Path, starts: Starts) -> Iterator[Backend]:
    yield build(PoolSpec("llamacpp", MODEL, model="demo", options=LLAMACPP), places(folder))


def vllm(**more: Any) -> Callable[[Path, Starts], AbstractContextManager[Backend]]:
    @contextmanager
    def on_cpu(folder: Path, starts: Starts) -> Iterator[Backend]:
        python = vllm_python()
        if python is None:
            pytest.skip(MISSING)
        starts.note(f"contract {more}")
        yield build(PoolSpec("vllm", MODEL, model="demo", options={**VLLM, **more}, python=python), places(folder))

    return on_cpu


SLOW = (pytest.mark.slow, pytest.mark.timeout(300))
SUBJECTS = (
    Subject("mock", mock, has_model=False),
    Subject("stub", stub, has_model=False),
    Subject("llamacpp", llamacpp, marks=(pytest.mark.engine,)),
    Subject("vllm", vllm(), marks=SLOW),
    Subject("vllm-ngram", vllm(speculative=NGRAM), marks=SLOW),
    Subject("vllm-draft", vllm(speculative=DRAFT), marks=SLOW),
)
