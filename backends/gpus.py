"""This machine's GPUs as NVIDIA's driver tells of them: those that an engine would see, their memory, and which processes hold it.

Where there is no driver, or it does not answer, nothing is known of any. Every method may block for some milliseconds.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

_ERRORS = (pynvml.NVMLError, OSError)
_NAME = re.compile(r"(?:CUDA|GPU)\s*(\d+)", re.IGNORECASE)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    """As engines number those that they see: `CUDA0`."""
    total_bytes: int
    free_bytes: int


class Gpus:
    """`driver` is NVML in production, `visible` what CUDA_VISIBLE_DEVICES says; None: all."""

    def __init__(self, driver: Any = pynvml, visible: str | None = os.environ.get("CUDA_VISIBLE_DEVICES")) -> None:
        self._driver = driver
        self._visible = visible

    def visible(self) -> tuple[Gpu, ...]:
        """In the order in which engines number them."""
        return self._asked(lambda: tuple(self._seen())) or ()

    def product(self, name: str) -> str:
        """What its maker calls it (`NVIDIA H200`); empty where that is not known."""
        found = self._asked(lambda: self._driver.nvmlDeviceGetName(self._handle(name))) or ""
        return found.decode(errors="replace") if isinstance(found, bytes) else str(found)

    def free_bytes(self, name: str) -> int | None:
        """Of the one that engines know by this name."""
        return self._asked(lambda: int(self._driver.nvmlDeviceGetMemoryInfo(self._handle(name)).free))

    def held_bytes(self, name: str) -> Mapping[int, int]:
        """Of one, by pid; a process of which the driver does not say how much is left out."""
        return self._asked(lambda: dict(self._processes(self._handle(name)))) or {}

    def all_held_bytes(self) -> Mapping[int, int]:
        """Of all that the machine has, whoever may see them, by pid."""
        return self._asked(self._everywhere) or {}

    def _asked(self, question: Callable[[], T]) -> T | None:
        with suppress(*_ERRORS):
            self._driver.nvmlInit()
            try:
                return question()
            finally:
                with suppress(*_ERRORS):
                    self._driver.nvmlShutdown()
        return None

    def _seen(self) -> Iterator[Gpu]:
        for number, which in enumerate(self._chosen()):
            memory = self._driver.nvmlDeviceGetMemoryInfo(self._handle_of(which))
            yield Gpu(f"CUDA{number}", int(memory.total), int(memory.free))

    def _everywhere(self) -> Counter[int]:
        held: Counter[int] = Counter()
        for index in range(self._driver.nvmlDeviceGetCount()):
            with suppress(*_ERRORS):  # one that is lost hides no other
                held.update(dict(self._processes(self._driver.nvmlDeviceGetHandleByIndex(index))))
        return held

    def _processes(self, handle: Any) -> Iterator[tuple[int, int]]:
        for each in self._driver.nvmlDeviceGetComputeRunningProcesses(handle):
            if each.usedGpuMemory:
                yield int(each.pid), int(each.usedGpuMemory)

    def _handle(self, name: str) -> Any:
        """Raises OSError where engines see no such GPU."""
        number, chosen = _NAME.fullmatch(name), self._chosen()
        if number is None or int(number[1]) >= len(chosen):
            raise OSError(f"no GPU {name}")
        return self._handle_of(chosen[int(number[1])])

    def _handle_of(self, which: str) -> Any:
        if which.isdigit():
            return self._driver.nvmlDeviceGetHandleByIndex(int(which))
        return self._driver.nvmlDeviceGetHandleByUUID(which)

    def _chosen(self) -> list[str]:
        """Numbers or UUIDs of those that engines see."""
        if self._visible is None:
            return [str(index) for index in range(self._driver.nvmlDeviceGetCount())]
        return [which for item in self._visible.split(",") if (which := item.strip())]


MACHINE = Gpus()
"""The one at hand."""
