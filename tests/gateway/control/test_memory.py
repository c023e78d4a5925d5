"""What is free and who holds it: a made-up /proc and NVML, and this machine's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from backends.gpus import Gpus
from backends.plan import GIB, RAM
from gateway.control.memory import MachineMemory


class Machine(Gpus):
    """Two GPUs."""

    def __init__(self) -> None:
        super().__init__(visible=None)

    def free_bytes(self, name: str) -> int | None:
        return {"CUDA0": 30 * GIB, "CUDA1": 70 * GIB}.get(name)

    def held_bytes(self, name: str) -> Mapping[int, int]:
        return {20: 8 * GIB, 21: 2 * GIB} if name == "CUDA0" else {}


class NoDriver(Gpus):
    def free_bytes(self, name: str) -> int | None:
        return None

    def held_bytes(self, name: str) -> Mapping[int, int]:
        return {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A group of two engine processes that lead to 20, and somebody else's."""
    proc = tmp_path / "proc"
    for pid, group, name, anonymous_kib in (
        (20, 20, "vllm (core)", 3 << 20),
        (21, 20, "worker", 1 << 20),
        (30, 30, "jupyter", 6 << 20),
    ):
        folder = proc / str(pid)
        folder.mkdir(parents=True)
        (folder / "stat").write_text(f"{pid} ({name}) S 1 {group} {group} 0")
        (folder / "comm").write_text(f"{name}\n")
        (folder / "status").write_text(
            f"Name:\t{name}\nRssAnon:\t{anonymous_kib} kB\nRssFile:\t9999999 kB\nRssShmem:\t0 kB\n"
        )
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 << 20} kB\n")
    (proc / "self").mkdir()
    return tmp_path


def test_free_memory_of_ram_and_gpus(root: Path) -> None:
    memory = MachineMemory(root, Machine())
    assert memory.free(["CUDA0", "CUDA1", "CUDA7", "Metal", RAM]) == {
        "CUDA0": 30 * GIB,
        "CUDA1": 70 * GIB,
        RAM: 8 * GIB,
    }


def test_without_a_driver_nothing_is_said_about_gpus(root: Path) -> None:
    memory = MachineMemory(root, NoDriver())
    assert memory.free(["CUDA0"]) == {}
    assert memory.held(20, ["CUDA0"]) is None
    assert memory.holders("CUDA0") == ""


def test_what_an_engine_holds_is_that_of_its_whole_group_without_mapped_files(root: Path) -> None:
    memory = MachineMemory(root, Machine())
    assert memory.held(20, [RAM, "CUDA0"]) == {RAM: 4 * GIB, "CUDA0": 10 * GIB}
    assert memory.held(20, ["CUDA1"]) is None  # the driver shows none of its processes there: that says nothing
    assert memory.held(77, [RAM]) is None


def test_the_largest_holders_are_named(root: Path) -> None:
    memory = MachineMemory(root, Machine())
    assert memory.holders("CUDA0") == "vllm (core) (pid 20) 8.0 GiB, worker (pid 21) 2.0 GiB"
    assert memory.holders(RAM) == "jupyter (pid 30) 6.0 GiB, vllm (core) (pid 20) 3.0 GiB, worker (pid 21) 1.0 GiB"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")
def test_this_machine() -> None:
    memory = MachineMemory()
    assert memory.free([RAM])[RAM] > 0
    held = memory.held(os.getpgid(0), [RAM])
    assert held is not None
    assert held[RAM] > 1 << 20
