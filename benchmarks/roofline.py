"""What a device can do at most: bytes read a second and floating-point operations a second, measured, and the time of a step by them.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore architectures", Communications of
the ACM 52(4), 2009. A step takes at least the longer of what its bytes take to be read and what its operations take to be computed.

The bandwidth is measured over as many bytes as the model has: a small model lies in the caches, and their speed is its roof.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

LEAST_S, ROUNDS = 0.1, 5
_LEAST_BYTES = 1 << 20
_CPU_SIDE, _GPU_SIDE = 1536, 8192


@dataclass(frozen=True, slots=True)
class Device:
    """Measured peaks."""

    name: str
    bytes_per_s: float
    flops: float
    """A second."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a step of a model moves and computes."""

    weight_bytes: int
    num_params: int
    kv_bytes: int
    """Of one token in the KV cache, all layers."""
    attention_width: int
    """Heads times their size, over all layers."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one step: `num_new` tokens are computed, and all of them together look at `num_seen` cached ones."""

    num_new: int
    num_seen: int


@dataclass(frozen=True, slots=True)
class Floor:
    """The least time of a step, seconds."""

    memory_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        """The longer of both."""
        return max(self.memory_s, self.compute_s)

    @property
    def bound(self) -> str:
        """Which one it is."""
        return "memory" if self.memory_s >= self.compute_s else "compute"


def floor(shape: Shape, work: Work, device: Device) -> Floor:
    """Weights and seen tokens are read once; a token is two operations a parameter, and four a seen token and unit of attention."""
    num_bytes = shape.weight_bytes + work.num_seen * shape.kv_bytes
    operations = 2 * shape.num_params * work.num_new + 4 * shape.attention_width * work.num_seen
    return Floor(num_bytes / device.bytes_per_s, operations / device.flops)


def of_cpu(num_threads: int, working_set: int, name: str) -> Device:
    """By numpy: the dot product of arrays that together are as large as `working_set`, and a product of float32 matrices."""
    import numpy as np

    size = max(_LEAST_BYTES, working_set) // (8 * num_threads)
    pairs = [(np.ones(size, dtype=np.float32), np.ones(size, dtype=np.float32)) for _ in range(num_threads)]
    square = np.ones((_CPU_SIDE, _CPU_SIDE), dtype=np.float32)
    with ThreadPoolExecutor(num_threads) as pool:
        bandwidth = _best(lambda: list(pool.map(lambda pair: np.vdot(*pair), pairs)), 8 * size * num_threads)
    return Device(name, bandwidth, _best(lambda: square @ square, 2 * _CPU_SIDE**3))


def of_gpu(working_set: int) -> Device:
    """By torch, of the first GPU: a sum over `working_set` bytes, and a product of bfloat16 matrices. Raises ImportError."""
    import torch

    read = torch.ones(max(_LEAST_BYTES, working_set) // 4, dtype=torch.float32, device="cuda")
    square = torch.ones((_GPU_SIDE, _GPU_SIDE), dtype=torch.bfloat16, device="cuda")

    def sum_all() -> None:
        read.sum()
        torch.cuda.synchronize()

    def multiply() -> None:
        torch.matmul(square, square)
        torch.cuda.synchronize()

    return Device(torch.cuda.get_device_name(0), _best(sum_all, read.numel() * 4), _best(multiply, 2 * _GPU_SIDE**3))


def _best(do: Callable[[], object], amount: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Amount a second, the best of some rounds after one to warm up: whatever disturbs makes it only slower."""
    do()
    rates = []
    for _ in range(ROUNDS):
        began_s, count = clock(), 0
        while count == 0 or clock() - began_s < LEAST_S:
            do()
            count += 1
        rates.append(count * amount / (clock() - began_s))
    return max(rates)
