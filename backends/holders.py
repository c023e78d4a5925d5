"""Who holds memory now, in words for somebody who lacks it: `VLLM::EngineCore (pid 12) 60.1 GiB, ...`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from backends.gpus import MACHINE, Gpus
from backends.plan import GIB, size_words

NUM_NAMED = 3
MIN_BYTES = GIB // 4
"""Less is not worth a name: a CUDA context that holds nothing takes as much."""
PROC = Path("/proc")


def holder_words(held: Mapping[int, int], own: frozenset[int] = frozenset(), proc: Path = PROC) -> str:
    """Of `held`, bytes by pid, those processes that have most, without `own`; empty where nobody has much."""
    named = [(pid, size) for pid, size in Counter(held).most_common() if pid not in own and size >= MIN_BYTES]
    return ", ".join(f"{_name(pid, proc)} (pid {pid}) {size_words(size)}" for pid, size in named[:NUM_NAMED])


def gpu_holders(own: frozenset[int] = frozenset(), gpus: Gpus = MACHINE, proc: Path = PROC) -> str:
    """Of all GPUs of this machine. May block for some milliseconds."""
    return holder_words(gpus.all_held_bytes(), own, proc)


def _name(pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip() or "a process"
    except OSError:
        return "a process"  # ended meanwhile, or of another container
