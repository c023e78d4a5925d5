"""The GPUs that an engine's llama.cpp sees and what is free on them, asked of a child: the gateway loads no llama.cpp."""

from __future__ import annotations

import json
import subprocess

from backends.errors import EngineUnavailable
from backends.llamacpp.memory import Device
from backends.pythons import child_env

TIMEOUT_S = 60.0
"""Waking several GPUs takes seconds, waking their driver tens of them."""


def list_devices(python: str) -> tuple[Device, ...]:
    """Raises EngineUnavailable when this interpreter's llama.cpp cannot be loaded."""
    argv = [python, "-P", "-m", "backends.llamacpp.binding.devices"]
    try:
        told = subprocess.run(
            argv, env=child_env(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise EngineUnavailable(
            f"{python}: llama.cpp did not list its devices within {TIMEOUT_S:g} s: does the GPU's driver answer?"
        ) from exc
    except OSError as exc:
        raise EngineUnavailable(f"{python} cannot be run: {exc.strerror or exc}") from exc
    if told.returncode != 0:
        raise EngineUnavailable(_why(python, told))
    try:
        return tuple(Device(**row) for row in json.loads(told.stdout.strip().splitlines()[-1]))
    except (ValueError, TypeError, IndexError) as exc:
        raise EngineUnavailable(_why(python, told)) from exc


def _why(python: str, told: subprocess.CompletedProcess[str]) -> str:
    if told.returncode == -4:
        return f"{python}: its llama.cpp was built for another CPU (illegal instruction): build it on this machine"
    last = (told.stderr.strip().splitlines() or ["no output"])[-1]
    return f"{python} cannot load its llama.cpp: {last}"
