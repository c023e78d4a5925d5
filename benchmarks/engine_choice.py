"""Which kind of engine a benchmark's gateway launches, what such an engine needs, and how long it may take to start."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.arguments import Parser

LLAMACPP, VLLM = "llamacpp", "vllm"


@dataclass(frozen=True, slots=True)
class Needs:
    """What all engines of a benchmark must be able to do."""

    num_streams: int
    """Requests that run at once."""
    num_tokens: int
    """Room of one request."""
    num_adapters: int = 0
    """LoRA adapters that are held at the same time."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """One kind."""

    kind: str
    title: str
    start_s: float
    """An engine on a small machine is up by then, its neighbours at work."""
    options: Callable[[Needs], dict[str, Any]]
    python: Path | None = None
    """Interpreter that runs it; None: the one that forgegate finds itself."""

    def pool(
        self, model: str, replicas: int, needs: Needs, more: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        """For the configuration; `more` are options of the engine that come on top."""
        pool: dict[str, Any] = {
            "engine": self.kind, "model": model, "replicas": replicas, "options": {**self.options(needs), **more},
        }  # fmt: skip
        return pool | ({"python": str(self.python)} if self.python else {})

    def ready_s(self, num_engines: int) -> float:
        """All of them are up by then; they may start one after the other."""
        return max(120.0, self.start_s * num_engines)


def llamacpp_options(needs: Needs) -> dict[str, Any]:
    """Room for all streams in one KV cache."""
    options: dict[str, Any] = {
        "n_ctx": needs.num_tokens * needs.num_streams, "n_seq_max": needs.num_streams, "max_waiting": 512,
    }  # fmt: skip
    return options | ({"max_adapters": needs.num_adapters} if needs.num_adapters else {})


def vllm_options(needs: Needs) -> dict[str, Any]:
    """Without compilation, which would be most of a start."""
    options: dict[str, Any] = {
        "max_model_len": needs.num_tokens, "max_num_seqs": needs.num_streams, "enforce_eager": True, "cpu_kv_cache_gib": 1,
    }  # fmt: skip
    lora = {"max_loras": needs.num_adapters, "max_cpu_loras": needs.num_adapters, "max_rank": 16}
    return options | ({"lora": lora} if needs.num_adapters else {})


CHOICES = {
    choice.kind: choice
    for choice in (
        EngineChoice(LLAMACPP, "llama.cpp", 60.0, llamacpp_options),
        EngineChoice(VLLM, "vLLM", 240.0, vllm_options),
    )
}


def add_options(parser: Parser, default: str = LLAMACPP) -> None:
    """`--engine` and `--python`."""
    parser.add_argument("--engine", choices=tuple(CHOICES), default=default, help=f"kind (default {default})")
    add_python(parser)


def add_python(parser: Parser) -> None:
    """`--python`."""
    parser.add_argument(
        "--python", type=Path, metavar="PATH", help="interpreter that runs the engines (default: forgegate finds it)"
    )


def chosen(options: argparse.Namespace) -> EngineChoice:
    """What the options say."""
    return replace(CHOICES[options.engine], python=options.python)
