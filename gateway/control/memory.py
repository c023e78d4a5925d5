"""How much memory is free, how much an engine holds, and who else holds some: RAM from /proc, GPUs from NVML.

Without an NVIDIA driver nothing is said about GPUs, without /proc nothing about RAM. Every method may block for some
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from backends.gpus import MACHINE, Gpus
from backends.holders import holder_words
from backends.plan import RAM
from backends.ram import free_ram


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
    def __init__(self, root: Path = Path("/"), gpus: Gpus = MACHINE) -> None:
        self._root = root
        self._gpus = gpus

    def free(self, devices: Iterable[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for device in devices:
            size = free_ram(self._root) if device == RAM else self._gpus.free_bytes(device)
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
            used = self._gpus.held_bytes(device)
            if not any(one in used for one in group):
                return None  # a driver that shows the processes of another namespace, or none
            held[device] = sum(used.get(one, 0) for one in group)
        return held

    def holders(self, device: str) -> str:
        held = self._in_ram() if device == RAM else self._gpus.held_bytes(device)
        return holder_words(held, proc=self._root / "proc")

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
