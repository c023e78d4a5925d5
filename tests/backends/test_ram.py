"""How much RAM is free, by files as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.ram import free_ram

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "proc/meminfo", "MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\nCached: 1 kB\n")
    return tmp_path


def put(root: Path, name: str, text: str | int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_without_limits_it_is_what_the_system_says(root: Path) -> None:
    assert free_ram(root) == 8_192_000 * 1024
    put(root, "proc/self/cgroup", "0::/user.slice/app")
    put(root, "sys/fs/cgroup/user.slice/app/memory.max", "max")
    put(root, "sys/fs/cgroup/user.slice/app/memory.current", 10 * MIB)
    assert free_ram(root) == 8_192_000 * 1024


def test_not_linux(tmp_path: Path) -> None:
    assert free_ram(tmp_path) is None


def test_a_cgroup_v2_limit_counts_without_what_can_be_given_up(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/pod/container")
    put(root, "sys/fs/cgroup/pod/container/memory.max", 1000 * MIB)
    put(root, "sys/fs/cgroup/pod/container/memory.current", 600 * MIB)
    put(root, "sys/fs/cgroup/pod/container/memory.stat", f"anon 1\ninactive_file {150 * MIB}\nactive_file 7")
    assert free_ram(root) == 550 * MIB
    # What holds for the pod holds for the container.
    put(root, "sys/fs/cgroup/pod/memory.max", 700 * MIB)
    put(root, "sys/fs/cgroup/pod/memory.current", 650 * MIB)
    assert free_ram(root) == 50 * MIB


def test_a_container_sees_its_own_limit_at_the_mounted_root(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/../../system.slice/docker-abc.scope")
    put(root, "sys/fs/cgroup/memory.max", 512 * MIB)
    put(root, "sys/fs/cgroup/memory.current", 12 * MIB)
    assert free_ram(root) == 500 * MIB


def test_a_cgroup_v1_limit(root: Path) -> None:
    put(root, "proc/self/cgroup", "11:cpu,cpuacct:/x\n9:memory:/docker/abc\n1:name=systemd:/x")
    put(root, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", 300 * MIB)
    put(root, "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", 400 * MIB)
    assert free_ram(root) == 0
    put(root, "sys/fs/cgroup/memory/docker/abc/memory.stat", f"total_inactive_file {200 * MIB}")
    assert free_ram(root) == 100 * MIB
    put(root, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", 0x7FFF_FFFF_FFFF_F000)
    assert free_ram(root) == 8_192_000 * 1024


def test_here_something_is_free() -> None:
    here = free_ram()
    assert here is None or here > 10 * MIB
