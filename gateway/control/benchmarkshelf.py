"""Runs of benchmarks on the disk: a folder for each, the oldest removed when there are too many.

benchmarks/20261130-174512-3fa2/run.json      what was asked, by whom, what became of it
                                result.json   as `forgegate bench run --out` writes it
                                report.html
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from backends.atomicfile import atomic_path
from gateway.control.benchmarkorder import BenchmarkBody

MAX_KEPT = 50
RUN, RESULT, REPORT = "run.json", "result.json", "report.html"


class RunState(StrEnum):
    """Where a run stands; all but the first are for good."""

    RUNNING = "running"
    DONE = "done"
    """There is a result, valid or void."""
    FAILED = "failed"
    """It could not be measured; `detail` says why."""
    STOPPED = "stopped"
    """By command."""
    CUT = "cut"
    """The gateway ended while it ran."""


@dataclass(frozen=True, slots=True)
class Level:
    """What was found at one load. Seconds and tokens per second; None where it is not defined or there were too few requests."""

    load: str
    """`8 streams`, `4 requests/s`."""
    is_valid: bool
    num_requests: int
    num_ok: int
    output_tps: float
    """Median of the repeats."""
    ttft_p50_s: float | None
    """To the first token; in an open loop from when the request was due."""
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times are Unix seconds."""

    id: str
    body: BenchmarkBody
    who: str
    resolved: str
    """What answered for the name: the version of the weights, or of the adapter; empty where the traffic is split."""
    at: float
    state: RunState = RunState.RUNNING
    detail: str = ""
    """What it does now, or why it came to nothing."""
    ended: float | None = None
    num_done: int = 0
    """Of `num_parts`: each is one load once."""
    num_parts: int = 0
    user_share: float = 0.0
    """Of the busiest engine's capacity that users took when it began, 0 to 1."""
    is_valid: bool | None = None
    """None without a result."""
    faults: tuple[str, ...] = ()
    """Why a result is void."""
    is_slo_met: bool | None = None
    """Whether what was promised is shown to hold at some load; None where nothing was, or without a result."""
    levels: tuple[Level, ...] = ()


class Shelf:
    """One writer: control. Every method blocks."""

    def __init__(self, folder: Path, max_kept: int = MAX_KEPT) -> None:
        self._folder = folder
        self._max_kept = max_kept

    def runs(self, say: Callable[[str], None]) -> list[Run]:
        """Oldest first; of what cannot be read it is said so, and it is left alone."""
        found = []
        for path in sorted(self._folder.glob(f"*/{RUN}")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Run))
            except (OSError, msgspec.MsgspecError) as exc:
                say(f"benchmarks: {path} cannot be read ({exc}); it is not shown")
        return found

    def folder(self, run_id: str) -> Path:
        return self._folder / run_id

    def keep(self, run: Run) -> None:
        """Whole or not at all. Raises OSError."""
        with atomic_path(self.folder(run.id) / RUN) as temporary:
            temporary.write_bytes(msgspec.json.encode(run))

    def trim(self, spared: str) -> list[str]:
        """Remove the oldest above the number that is kept, but not the spared one; their ids."""
        ids = sorted(path.parent.name for path in self._folder.glob(f"*/{RUN}"))
        going = [run_id for run_id in ids[: max(0, len(ids) - self._max_kept)] if run_id != spared]
        for run_id in going:
            self.remove(run_id)
        return going

    def remove(self, run_id: str) -> None:
        shutil.rmtree(self.folder(run_id), ignore_errors=True)

    def result(self, run_id: str) -> bytes | None:
        return _content(self.folder(run_id) / RESULT)

    def report(self, run_id: str) -> bytes | None:
        return _content(self.folder(run_id) / REPORT)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
