"""No process holds what it does not need: what each of them imports, measured in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "vllm", "llama_cpp", "numpy", "gguf", "safetensors"}


def imported_by(module: str) -> set[str]:
    """Top-level names in sys.modules of a new interpreter that imported only this module."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "gateway.cli",
        "gateway.data.worker",
        "gateway.control.app",
        "benchmarks.cli",
        "benchmarks.optimize.command",
        "backends.adapter.proof",
    ],
)
def test_no_heavy_framework_is_imported(module: str) -> None:
    assert not imported_by(module) & HEAVY


def test_the_command_starts_without_a_web_framework() -> None:
    assert not imported_by("gateway.cli") & {
        "fastapi",
        "starlette",
        "uvicorn",
        "pydantic",
        "httpx",
        "prometheus_client",
    }


def test_engine_options_are_read_without_the_engine() -> None:
    assert not imported_by("backends.llamacpp.options") & HEAVY
