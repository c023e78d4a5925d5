"""The GPUs that an engine would see, and their memory, as NVIDIA's driver tells it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

ERRORS = (pynvml.NVMLError, OSError)


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    """As engines number those that they see: `CUDA0`."""
    total_bytes: int
    free_bytes: int


def visible_gpus(driver: Any = pynvml, visible: str | None = os.environ.get("CUDA_VISIBLE_DEVICES")) -> tuple[Gpu, ...]:
    """In the order of CUDA_VISIBLE_DEVICES; empty where there is no driver, or it does not tell."""
    try:
        driver.nvmlInit()
    except ERRORS:
        return ()
    try:
        return tuple(_gpus(driver, visible))
    except ERRORS:
        return ()
    finally:
        with suppress(*ERRORS):
            driver.nvmlShutdown()


def _gpus(driver: Any, visible: str | None) -> Iterator[Gpu]:
    chosen = [str(i) for i in range(driver.nvmlDeviceGetCount())] if visible is None else visible.split(",")
    for number, which in enumerate(filter(None, map(str.strip, chosen))):
        handle = (
            driver.nvmlDeviceGetHandleByIndex(int(which))
            if which.isdigit()
            else driver.nvmlDeviceGetHandleByUUID(which)
        )
        memory = driver.nvmlDeviceGetMemoryInfo(handle)
        yield Gpu(f"CUDA{number}", int(memory.total), int(memory.free))
