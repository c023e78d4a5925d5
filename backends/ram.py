"""How much RAM this process may still take: what the system says is available, or less where a container is limited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number near 2^63."""


def free_ram(root: Path = Path("/")) -> int | None:
    """Bytes; None where this system does not say (not Linux). Pages that the kernel would give up are free."""
    available = _available(root / "proc/meminfo")
    if available is None:
        return None
    return max(0, min([available, *_limits(root)]))


def _available(meminfo: Path) -> int | None:
    for line in _read(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _limits(root: Path) -> Iterator[int]:
    """What each limited cgroup that holds this process has left; limits hold for everything below them."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, inner = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mounted, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounted = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = mounted / inner.lstrip("/")
        # In a container the path may be the host's, of which only the mounted end exists.
        for folder in [group, *group.parents]:
            if folder.is_relative_to(mounted) and (left := _left(folder, *names)) is not None:
                yield left


def _left(folder: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> int | None:
    limit, usage = _number(folder / limit_name), _number(folder / usage_name)
    if limit is None or usage is None or limit >= _UNLIMITED:
        return None
    stat = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
    reclaimable = stat.get(reclaimable_name, "0")
    return limit - usage + (int(reclaimable) if reclaimable.isdigit() else 0)


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
