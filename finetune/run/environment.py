"""With what a run was made: versions and machine. No variable of the environment, which may hold a secret."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backends.gpus import MACHINE, Gpus
from backends.ram import free_ram

PACKAGES = (
    "forgegate", "torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "tokenizers",
    "safetensors", "numpy", "triton", "liger-kernel", "flash-attn",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """JSON-able."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "machine": platform.machine(),
        "num_cpus": os.cpu_count(),
        "free_ram_bytes": free_ram(),
        "gpus": gpus(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def gpus(machine: Gpus = MACHINE) -> list[dict[str, Any]]:
    """Those that training would see; empty where there are none."""
    return [{"name": machine.product(gpu.name), "total_bytes": gpu.total_bytes} for gpu in machine.visible()]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
