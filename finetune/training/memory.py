"""What memory a run takes, what it may take, and how its lack shows."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from backends.ram import free_ram

_NO_MEMORY = re.compile(
    r"out of memory|DefaultCPUAllocator|can't allocate memory|cannot allocate memory|std::bad_alloc"
    r"|could not create a (memory|primitive)|CUBLAS_STATUS_ALLOC_FAILED|ENOMEM|not enough memory",
    re.IGNORECASE,
)
"""How libraries say it that raise no error of their own for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or what it came of, says so."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(each, RuntimeError | OSError | ValueError) and _NO_MEMORY.search(str(each)):
            return True
        each = each.__cause__ or each.__context__
    return False


RESERVE_BYTES = 64 << 20
"""Of a limit on a CPU: pages of libraries that are touched for the first time are resident then, and no bound counts them."""


class Meter:
    """Figures of one device. On a GPU: what tensors take, and the most they took. On a CPU: the process' resident memory."""

    def __init__(self, device: torch.device, limit_bytes: int | None = None) -> None:
        self._device, self._limit = device, limit_bytes
        self.base_bytes = 0 if self._is_gpu else self.used_bytes()
        """Before anything is loaded; a GPU's context is not counted."""
        self._machine_bytes = 0 if self._is_gpu else (free_ram() or 0) + self.base_bytes

    @property
    def _is_gpu(self) -> bool:
        return self._device.type == "cuda"

    def limit(self) -> None:
        """From now on the process gets no more than the limit. Raises MemoryError where it has more already.

        On a CPU it is what is left of the limit that is bounded, as addresses that can be written to: much of what libraries have by now is
        reserved and never used, which the system counts as well.
        """
        if self._limit is None:
            return
        if self._is_gpu:
            share = min(1.0, self._limit / self._device_bytes())
            torch.cuda.set_per_process_memory_fraction(share, self._device)
            return
        left = self._limit - self.used_bytes() - RESERVE_BYTES
        if left <= 0:
            raise MemoryError(
                f"the process takes {self.used_bytes():,} bytes before it has read anything, and may take {RESERVE_BYTES:,} more for "
                f"libraries; its limit is {self._limit:,}"
            )
        bound, hard = _status_bytes("VmData") + left, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))

    def used_bytes(self) -> int:
        if self._is_gpu:
            return int(torch.cuda.memory_allocated(self._device))
        return _status_bytes("VmRSS") or self.peak_bytes()

    def peak_bytes(self) -> int:
        if self._is_gpu:
            return int(torch.cuda.max_memory_allocated(self._device))
        # Linux counts what the parent had before it became this process among the latter's.
        if peak := _status_bytes("VmHWM"):
            return peak
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def total_bytes(self) -> int:
        """Of the device, or of what the limit leaves of it; on a CPU what was free for this process at first. 0: not known."""
        total = self._device_bytes()
        return min(total, self._limit) if self._limit and total else self._limit or total

    def _device_bytes(self) -> int:
        if self._is_gpu:
            return int(torch.cuda.get_device_properties(self._device).total_memory)
        return self._machine_bytes


def by_part(model: Any, optimizer: Any, meter: Meter) -> dict[str, int]:
    """Bytes of what stands in memory between steps; `overhead` is the process itself, and `activations` all that the peak has beyond these,
    logits among it."""
    parts = {"weights": 0, "adapter": 0, "gradients": 0, "optimizer": 0, "overhead": meter.base_bytes}
    for value in [] if model is None else model.parameters():
        parts["adapter" if value.requires_grad else "weights"] += value.nbytes
        parts["gradients"] += 0 if value.grad is None else value.grad.nbytes
    for state in [] if optimizer is None else optimizer.state.values():
        parts["optimizer"] += sum(value.nbytes for value in state.values() if torch.is_tensor(value))
    return {**parts, "activations": max(0, meter.peak_bytes() - sum(parts.values()))}


def _status_bytes(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
