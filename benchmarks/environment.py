"""The machine and the software that a figure belongs to."""

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("forgegate", "httptools", "uvloop", "orjson")
_SECRET_OPTIONS = ("--api-key", "--api-key-b")


def environment() -> dict[str, Any]:
    """JSON-able. Holds nothing that names a person or a host."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": num_cores(),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": {name: version for name in _PACKAGES if (version := version_of(name))},
    }


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_busy(interval_s: float = 1.0) -> float | None:
    """Share of all cores in use over the interval, by anybody on this machine; None where the system does not tell."""
    before = _cpu_ticks()
    if before is None:
        return None
    time.sleep(interval_s)
    after = _cpu_ticks() or before
    total = after[0] - before[0]
    return 1 - (after[1] - before[1]) / total if total > 0 else None


def shown_command(argv: Sequence[str]) -> list[str]:
    """The command line for a result file: values of secret options struck out, and of absolute paths only the name,
    since a reader needs neither the key nor where somebody keeps things.
    """
    shown = [Path(word).name if word.startswith("/") else word for word in argv]
    for position, word in enumerate(argv):
        for option in _SECRET_OPTIONS:
            if word == option and position + 1 < len(argv):
                shown[position + 1] = "***"
            elif word.startswith(f"{option}="):
                shown[position] = f"{option}=***"
    return shown


def _cpu_ticks() -> tuple[int, int] | None:
    """All ticks and idle ones (waiting for disks included) since boot."""
    try:
        words = Path("/proc/stat").read_text("utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(word) for word in words]
    return (sum(ticks), ticks[3] + ticks[4]) if len(ticks) >= 5 else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def version_of(name: str) -> str | None:
    """Of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
