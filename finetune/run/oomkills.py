"""How many processes the kernel has ended for want of memory: a process killed so cannot say it itself."""

from __future__ import annotations

from pathlib import Path


def num_oom_kills(root: Path = Path("/")) -> int | None:
    """Since the machine was started; None where the system does not count."""
    try:
        lines = (root / "proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
