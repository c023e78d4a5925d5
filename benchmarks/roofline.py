"""What a device can do at most: bytes read a second and floating-point operations a second, measured, and the time of a step by them.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore architectures", Communications of
the ACM 52(4), 2009. A step takes at least the longer of what its bytes take to be read and what its operations take to be computed.

The bandwidth is measured over as many bytes as the model has: a small model lies in the caches, and their speed is its roof.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

LEAST_S, ROUNDS = 0.1, 5
_LEAST_BYTES = 1 << 20
_CPU_SIDE, _GPU_SIDE = 1536, 8192
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class RooflineError(RuntimeError):
    """A device's peaks cannot be measured; the message says why."""


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
    """That a step reads."""
    body_params: int
    """That every token is multiplied by."""
    head_params: int
    """That make logits of a token, where they are asked for."""
    kv_bytes: int
    """Of one token in the KV cache, all layers."""
    attention_width: int
    """Heads times their size, over all layers."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one step: `num_new` tokens are computed, all of them together look at `num_seen` cached ones, and of `num_logits` of them the
    logits are asked for.
    """

    num_new: int
    num_seen: int
    num_logits: int


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
    """Weights and seen tokens are read once; a token is two operations a parameter of the body, its logits two a parameter of the
    head, and four a seen token and unit of attention.
    """
    num_bytes = shape.weight_bytes + work.num_seen * shape.kv_bytes
    products = shape.body_params * work.num_new + shape.head_params * work.num_logits
    operations = 2 * products + 4 * shape.attention_width * work.num_seen
    return Floor(num_bytes / device.bytes_per_s, operations / device.flops)


def of_cpu(num_threads: int, working_set: int, name: str) -> Device:
    """By numpy: the dot product of arrays that together are as large as `working_set`, and a product of float32 matrices, each in a child
    of its own, since BLAS reads its number of threads when it is loaded. Raises RooflineError.
    """
    bandwidth = _in_child(1, "bandwidth", num_threads, working_set)  # one array a thread: BLAS must not divide it again
    return Device(name, bandwidth, _in_child(num_threads, "flops"))


def threads_env(num_threads: int) -> dict[str, str]:
    """This process's environment, for a BLAS of so many threads."""
    return {**os.environ, **dict.fromkeys(_BLAS_THREADS, str(num_threads))}


def _in_child(num_blas_threads: int, *words: object) -> float:
    argv = [sys.executable, "-m", "benchmarks.roofline", *map(str, words)]
    try:
        done = subprocess.run(argv, env=threads_env(num_blas_threads), capture_output=True, text=True, check=True)
        return float(done.stdout)
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr.strip().splitlines() or [f"exit code {exc.returncode}"])[-1]
        raise RooflineError(f"cannot measure this CPU's peaks: {last}") from exc
    except (OSError, ValueError) as exc:
        raise RooflineError(f"cannot measure this CPU's peaks: {exc}") from exc


def _bandwidth(num_threads: int, working_set: int) -> float:
    import numpy as np

    size = max(_LEAST_BYTES, working_set) // (8 * num_threads)
    pairs = [(np.ones(size, dtype=np.float32), np.ones(size, dtype=np.float32)) for _ in range(num_threads)]
    with ThreadPoolExecutor(num_threads) as pool:
        return _best(lambda: list(pool.map(lambda pair: np.vdot(*pair), pairs)), 8 * size * num_threads)


def _flops() -> float:
    import numpy as np

    square = np.ones((_CPU_SIDE, _CPU_SIDE), dtype=np.float32)
    return _best(lambda: square @ square, 2 * _CPU_SIDE**3)


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


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    print(_bandwidth(*map(int, numbers)) if what == "bandwidth" else _flops())
