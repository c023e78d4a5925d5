"""How many threads compute best: one per physical core that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def num_physical_cores() -> int:
    """Physical cores in this process's affinity and within its container's quota; hyper-threads count once."""
    try:
        cpus = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return max((os.cpu_count() or 2) // 2, 1)
    cores = len({_core_of(cpu) for cpu in cpus})
    return max(min(cores, _quota()), 1)


def _core_of(cpu: int) -> str:
    try:
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """CPUs that the cgroup (v2) grants, rounded up; very many where there is no limit."""
    try:
        quota, period = _QUOTA.read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 20
