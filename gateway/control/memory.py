"""How much memory is free, how much an engine holds, and who else holds some: RAM from /proc, GPUs from NVML.

Without an NVIDIA driver nothing is said about GPUs, without /proc nothing about RAM. Every method may block for some
milliseconds.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pynvml

from backends.plan import GIB, RAM, size_words
from backends.ram import free_ram

GPU = re.compile(r"(?:CUDA|GPU)\s*(\d+)", re.IGNORECASE)
NUM_HOLDERS = 3
MIN_HOLDER_BYTES = GIB // 4


class Memory(Protocol):
    """What `Starts` asks of this machine."""

    def free(self, devices: Iterable[str]) -> Mapping[str, int]:
        """Bytes by device; without those of which nothing is known."""
        ...

    def held(self, pid: int, devices: Iterable[str]) -> Mapping[str, int] | None:
        """What the process group of `pid` holds of them, as far as it is missing in `free`; None where that is not known."""
        ...

    def holders(self, device: str) -> str:
        """Who holds most of it, in words; empty where nothing is known."""
        ...


class MachineMemory:
    """`gpus` is NVML in production; it is opened at the first question about a GPU."""

    def __init__(
        self, root: Path = Path("/"), gpus: Any = pynvml, visible: str | None = os.environ.get("CUDA_VISIBLE_DEVICES")
    ) -> None:
        self._root = root
        self._gpus = gpus
        self._visible = visible
        self._has_gpus: bool | None = None

    def free(self, devices: Iterable[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for device in devices:
            size = free_ram(self._root) if device == RAM else self._free_gpu(device)
            if size is not None:
                found[device] = size
        return found

    def held(self, pid: int, devices: Iterable[str]) -> Mapping[str, int] | None:
        group = set(self._group(pid))
        if not group:
            return None
        held: dict[str, int] = {}
        for device in devices:
            if device == RAM:
                # Pages of mapped files can be given up: they count as free memory.
                held[RAM] = sum(self._status(one, "RssAnon", "RssShmem") for one in group)
                continue
            used = self._on_gpu(device)
            if not any(one in used for one in group):
                return None  # a driver that shows the processes of another namespace, or none
            held[device] = sum(used.get(one, 0) for one in group)
        return held

    def holders(self, device: str) -> str:
        used = self._in_ram() if device == RAM else self._on_gpu(device)
        most = [(pid, size) for pid, size in Counter(used).most_common(NUM_HOLDERS) if size >= MIN_HOLDER_BYTES]
        return ", ".join(f"{self._name(pid)} (pid {pid}) {size_words(size)}" for pid, size in most)

    # RAM --------------------------------------------------------------------------------------------------------------

    def _group(self, leader: int) -> Iterator[int]:
        for pid in self._pids():
            stat = self._read(pid, "stat").rpartition(")")[2].split()
            if len(stat) > 2 and int(stat[2]) == leader:
                yield pid

    def _in_ram(self) -> dict[int, int]:
        return {pid: self._status(pid, "RssAnon", "RssShmem") for pid in self._pids()}

    def _status(self, pid: int, *names: str) -> int:
        total = 0
        for line in self._read(pid, "status").splitlines():
            name, _, value = line.partition(":")
            if name in names:
                total += int(value.split()[0]) * 1024
        return total

    def _name(self, pid: int) -> str:
        return self._read(pid, "comm").strip() or "a process"

    def _pids(self) -> list[int]:
        try:
            return [int(entry.name) for entry in (self._root / "proc").iterdir() if entry.name.isdigit()]
        except OSError:
            return []

    def _read(self, pid: int, name: str) -> str:
        try:
            return (self._root / "proc" / str(pid) / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""  # gone, or another user's

    # GPUs -------------------------------------------------------------------------------------------------------------

    def _free_gpu(self, device: str) -> int | None:
        free = self._asked(device, lambda handle: self._gpus.nvmlDeviceGetMemoryInfo(handle).free)
        return None if free is None else int(free)

    def _on_gpu(self, device: str) -> dict[int, int]:
        """By pid; a process of which NVML does not say how much is left out."""

        def ask(handle: object) -> dict[int, int]:
            processes: Sequence[Any] = self._gpus.nvmlDeviceGetComputeRunningProcesses(handle)
            return {int(one.pid): int(one.usedGpuMemory) for one in processes if one.usedGpuMemory}

        return self._asked(device, ask) or {}

    def _asked(self, device: str, question: Callable[[Any], Any]) -> Any:
        """The answer of NVML; None where there is none."""
        name = GPU.fullmatch(device)
        if name is None or not self._can_ask():
            return None
        with suppress(self._gpus.NVMLError):
            return question(self._handle(int(name[1])))
        return None

    def _handle(self, number: int) -> object:
        """Engines number the GPUs that CUDA_VISIBLE_DEVICES leaves them."""
        visible = [item.strip() for item in self._visible.split(",")] if self._visible else []
        if number < len(visible):
            chosen = visible[number]
            if not chosen.isdigit():
                return self._gpus.nvmlDeviceGetHandleByUUID(chosen)
            number = int(chosen)
        return self._gpus.nvmlDeviceGetHandleByIndex(number)

    def _can_ask(self) -> bool:
        if self._has_gpus is None:
            self._has_gpus = False
            with suppress(self._gpus.NVMLError):
                self._gpus.nvmlInit()
                self._has_gpus = True
        return self._has_gpus
