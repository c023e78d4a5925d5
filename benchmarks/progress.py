"""How far a campaign is, for whoever waits for it: an estimate before it, a line while a run goes on, a line when it has ended."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from benchmarks import report
from benchmarks.campaign import MeasuredRun, Observer
from benchmarks.loadgen import LoadRun
from benchmarks.loads import Load

INTERVAL_S = 1.0
_CLEAR = "\r\x1b[K"

Expected = Callable[[float], tuple[float, float]]
"""Of one request's seconds: how long everything takes, at least and at most."""


def span(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `1 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")


def expected_of(loads: Sequence[Load], repeats: int) -> Expected:
    """Of loads that are all known."""

    def expected(e2e_s: float) -> tuple[float, float]:
        total_s = repeats * sum(load.expected_s(e2e_s) for load in loads)
        return total_s, total_s

    return expected


class Progress(Observer):
    """Writes to `out`; the line while a run goes on only to a terminal. Close it at the end."""

    def __init__(
        self, out: TextIO, expected: Expected, num_runs: int | None, num_ended: Callable[[], int] = lambda: 0
    ) -> None:
        self._out = out
        self._expected = expected
        self._num_runs = num_runs
        self._num_ended = num_ended
        self._e2e_s = 0.0
        self._ticker: asyncio.Task[None] | None = None

    def announce(self, what: str) -> None:
        """Before anything is sent."""
        least_s, _ = self._expected(0.0)
        at_least = f", at least {span(least_s)}" if least_s >= 1 else ""
        self._say(f"{what}{at_least}")

    def warmed(self, run: LoadRun) -> None:
        """As Observer: the warm-up's requests say how long one takes."""
        took = [record.end_s - record.sent_s for record in run.records if record.is_ok and record.sent_s is not None]
        self._e2e_s = statistics.median(took) if took else 0.0
        least_s, most_s = self._expected(self._e2e_s)
        about = span(least_s) if most_s < 1.1 * least_s else f"{span(least_s)} to {span(most_s)}"
        self._say(f"about {about} (a request of the warm-up took {self._e2e_s:.3g} s)")

    def started(self, load: Load, repeat: int, order: int) -> None:
        """As Observer."""
        if self._out.isatty():
            name = f"[{order + 1}{f'/{self._num_runs}' if self._num_runs else ''}] {load.label}, repeat {repeat}"
            self._ticker = asyncio.create_task(self._tick(name, load.expected_s(self._e2e_s)))

    def ended(self, run: MeasuredRun) -> None:
        """A run has ended."""
        self.close()
        self._say(report.progress_line(run, self._num_runs))

    def close(self) -> None:
        """No further line of a run that goes on."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
            self._out.write(_CLEAR)

    async def _tick(self, name: str, expected_s: float) -> None:
        start_s, before = time.monotonic(), self._num_ended()
        while True:
            num = self._num_ended() - before
            passed_s = time.monotonic() - start_s
            about = f" of about {expected_s:.0f}" if expected_s >= 1 else ""
            counted = f", {num:,} requests ended" if num else ""
            self._out.write(f"{_CLEAR}{name}: {passed_s:.0f}{about} s{counted}")
            self._out.flush()
            await asyncio.sleep(INTERVAL_S)

    def _say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
