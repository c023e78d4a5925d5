"""The driver's answers as engines number GPUs, by a made-up NVML."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from backends.gpus import Gpu, Gpus


class Driver:
    """Two GPUs, 0 and 1, of 100 and 101 bytes, with these processes; None: that GPU does not answer."""

    def __init__(self, *processes: dict[int, int | None] | None, is_there: bool = True) -> None:
        self._processes = processes or ({}, {})
        self._is_there = is_there
        self.num_open = 0

    def nvmlInit(self) -> None:
        if not self._is_there:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.num_open += 1

    def nvmlShutdown(self) -> None:
        self.num_open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self._processes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= len(self._processes):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid[-1])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=100 + handle, free=handle)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        processes = self._processes[handle]
        if processes is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in processes.items()]


@pytest.mark.parametrize(
    ("visible", "numbers"), [(None, (0, 1)), ("1", (1,)), ("GPU-abc-1, 0", (1, 0)), ("", ()), ("5", ()), ("0,", (0,))]
)
def test_gpus_are_numbered_as_engines_see_them(visible: str | None, numbers: tuple[int, ...]) -> None:
    driver = Driver({7: 70}, {8: 80})
    gpus = Gpus(driver, visible)
    assert gpus.visible() == tuple(Gpu(f"CUDA{at}", 100 + which, which) for at, which in enumerate(numbers))
    for at, which in enumerate(numbers):
        assert gpus.free_bytes(f"CUDA{at}") == gpus.free_bytes(f"GPU {at}") == which
        assert gpus.held_bytes(f"CUDA{at}") == ({7: 70}, {8: 80})[which]
    for other in (f"CUDA{len(numbers)}", "Metal", "RAM"):
        assert gpus.free_bytes(other) is None
        assert gpus.held_bytes(other) == {}
    assert driver.num_open == 0


def test_what_processes_hold_of_all_gpus_is_added_up_whoever_sees_them() -> None:
    driver = Driver({12: 3, 11: 20, 14: None}, None, {11: 40, 15: 1})
    assert Gpus(driver, "0").all_held_bytes() == {12: 3, 11: 60, 15: 1}
    assert Gpus(driver, "0,1").held_bytes("CUDA1") == {}
    assert driver.num_open == 0


@pytest.mark.parametrize(
    ("question", "nothing"),
    [
        (Gpus.visible, ()), (Gpus.all_held_bytes, {}), (lambda gpus: gpus.free_bytes("CUDA0"), None),
        (lambda gpus: gpus.held_bytes("CUDA0"), {}),
    ],
)  # fmt: skip
def test_without_a_driver_nothing_is_known(question: Callable[[Gpus], object], nothing: object) -> None:
    assert question(Gpus(Driver(is_there=False), None)) == nothing
