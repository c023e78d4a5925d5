"""Who holds the memory of this machine's GPUs now, for the words about a start that found too little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynvml

from backends.plan import GIB, size_words

NUM_NAMED = 3
MIN_BYTES = GIB // 4
"""Less is a CUDA context that holds nothing."""
_ERRORS = (pynvml.NVMLError, OSError)


def gpu_holders(own: frozenset[int] = frozenset(), driver: Any = pynvml, proc: Path = Path("/proc")) -> str:
    """`VLLM::EngineCore (pid 12) 60.1 GiB, ...`, those that hold most, without `own`; empty where the driver names nobody. May block for
    some milliseconds.
    """
    used: Counter[int] = Counter()
    with suppress(*_ERRORS):
        driver.nvmlInit()
        try:
            for pid, size in _processes(driver):
                used[pid] += size
        finally:
            driver.nvmlShutdown()
    named = [(pid, size) for pid, size in used.most_common() if pid not in own and size >= MIN_BYTES]
    return ", ".join(f"{_name(pid, proc)} (pid {pid}) {size_words(size)}" for pid, size in named[:NUM_NAMED])


def _processes(driver: Any) -> Iterator[tuple[int, int]]:
    for index in range(driver.nvmlDeviceGetCount()):
        with suppress(*_ERRORS):
            for each in driver.nvmlDeviceGetComputeRunningProcesses(driver.nvmlDeviceGetHandleByIndex(index)):
                yield int(each.pid), int(each.usedGpuMemory or 0)


def _name(pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip() or "a process"
    except OSError:
        return "a process"  # ended meanwhile, or of another container
