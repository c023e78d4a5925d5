"""What a GPU holds and for whom, by nvidia-smi: a witness apart from the gateway, which asks the driver itself."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.chaos_gateway import GatewayError

MIB = 1 << 20
SAMPLE_S = 0.25
_HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda").fill_(1)
torch.cuda.synchronize()
print("held", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first one."""

    name: str
    driver: str
    total_bytes: int


def gpu() -> Gpu | None:
    """None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    row = _query("--query-gpu=name,driver_version,memory.total")
    return Gpu(row[0][0], row[0][1], int(row[0][2]) * MIB) if row else None


def used_bytes() -> int:
    """Of the first GPU, whoever holds it. Raises GatewayError."""
    rows = _query("--query-gpu=memory.used")
    if not rows or not rows[0][0].isdigit():
        raise GatewayError("nvidia-smi does not tell how much memory is used")
    return int(rows[0][0]) * MIB


def holders() -> dict[int, int]:
    """Bytes by process, where the driver tells."""
    rows = _query("--query-compute-apps=pid,used_memory")
    return {int(row[0]): int(row[1]) * MIB for row in rows if len(row) == 2 and row[0].isdigit() and row[1].isdigit()}


def _query(what: str) -> list[list[str]]:
    found = subprocess.run(
        ("nvidia-smi", what, "--format=csv,noheader,nounits", "--id=0"), capture_output=True, text=True, timeout=20, check=False
    )  # fmt: skip
    if found.returncode != 0:
        return []
    return [[cell.strip() for cell in line.split(",")] for line in found.stdout.splitlines() if line.strip()]


@contextmanager
def held(leave_bytes: int, python: str = sys.executable) -> Iterator[int]:
    """Another process holds all free memory but this much; yields its pid. Raises GatewayError."""
    child = subprocess.Popen(
        (python, "-c", _HOG, str(leave_bytes)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    try:
        if child.stdout.readline().strip() != b"held":
            raise GatewayError("the process that should hold the GPU's memory could not take it")
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


@dataclass(slots=True)
class Samples:
    """Used bytes over time, seconds from the first."""

    times_s: list[float] = field(default_factory=list)
    used: list[int] = field(default_factory=list)

    def at(self, time_s: float) -> int:
        """The last sample not later than this, or the first."""
        found = [used for when, used in zip(self.times_s, self.used, strict=True) if when <= time_s]
        return found[-1] if found else self.used[0]

    def thinned(self, num: int = 60) -> list[tuple[float, int]]:
        """For the result file, MiB."""
        step = max(1, len(self.used) // num)
        pairs: Sequence[tuple[float, int]] = list(zip(self.times_s, self.used, strict=True))
        return [(round(when, 2), used // MIB) for when, used in pairs[::step]]


async def sample(into: Samples, since_s: float) -> None:
    """Until cancelled; `since_s` on the event loop's clock."""
    clock = asyncio.get_running_loop().time
    while True:
        into.used.append(await asyncio.to_thread(used_bytes))
        into.times_s.append(clock() - since_s)
        await asyncio.sleep(SAMPLE_S)
