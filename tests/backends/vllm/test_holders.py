from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml
import pytest

from backends.plan import GIB
from backends.vllm.holders import gpu_holders


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None


class Driver:
    """NVML with these processes on each GPU; None: that GPU does not answer."""

    def __init__(self, *gpus: list[Process] | None) -> None:
        self._gpus = gpus
        self.is_open = False

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Process]:
        processes = self._gpus[handle]
        if processes is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return processes


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid, name in ((11, "VLLM::EngineCor"), (12, "python3")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
    return tmp_path


def test_those_that_hold_most_are_named(proc: Path) -> None:
    driver = Driver(
        [Process(12, 3 * GIB), Process(11, 20 * GIB), Process(13, GIB // 8), Process(14, None)],
        None,
        [Process(11, 40 * GIB), Process(15, GIB), Process(16, GIB), Process(99, 80 * GIB)],
    )
    assert gpu_holders(frozenset({99}), driver, proc) == (
        "VLLM::EngineCor (pid 11) 60.0 GiB, python3 (pid 12) 3.0 GiB, a process (pid 15) 1.0 GiB"
    )
    assert not driver.is_open


def test_nobody_holds_any_or_nothing_is_known(proc: Path) -> None:
    assert gpu_holders(frozenset(), Driver([]), proc) == ""
    assert gpu_holders(frozenset({11}), Driver([Process(11, GIB)]), proc) == ""

    class Absent(Driver):
        def nvmlInit(self) -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    assert gpu_holders(frozenset(), Absent(), proc) == ""
