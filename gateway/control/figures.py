"""How the versions of an alias fared, and when that is bad enough to go back. Pure, but for the counts that `Traffic` keeps.

    workers --Tallies--> Traffic: by alias and version, second by second --> Figures of a window --> breach

Nothing is decided from fewer requests than the watch asks for. The newest version is held against what was live before: beside it, in
the same window, in a split; else what that came to in the window before the flip, where it had enough requests and this control saw them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.control.desired import Shares, Watch
from gateway.ttft import median_s

SLOT_S = 1.0
MAX_WINDOW_S = 3600.0


class Counted(Protocol):
    """As `gateway.snapshot.Tally` has it."""

    @property
    def num_requests(self) -> int: ...
    @property
    def num_errors(self) -> int: ...
    @property
    def ttfts(self) -> dict[int, int]: ...


@dataclass(slots=True)
class Figures:
    """Of some requests. `ttfts`: of those that were answered, by bucket of `gateway.ttft`."""

    num_requests: int = 0
    num_errors: int = 0
    ttfts: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counted) -> None:
        self.num_requests += other.num_requests
        self.num_errors += other.num_errors
        for bucket, num in other.ttfts.items():
            self.ttfts[bucket] = self.ttfts.get(bucket, 0) + num

    @property
    def error_share(self) -> float:
        return self.num_errors / self.num_requests if self.num_requests else 0.0

    @property
    def ttft_s(self) -> float | None:
        """The median."""
        return median_s(self.ttfts)

    @property
    def num_timed(self) -> int:
        return sum(self.ttfts.values())


class Traffic:
    """Figures by alias, version and second, of the newest hour."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], deque[tuple[float, Figures]]] = {}

    def add(self, alias: str, version: str, counted: Counted, now_s: float) -> None:
        slots = self._slots.setdefault((alias, version), deque())
        if not slots or now_s - slots[-1][0] >= SLOT_S:
            slots.append((now_s, Figures()))
        slots[-1][1].add(counted)

    def between(self, alias: str, versions: Iterable[str], since_s: float, until_s: float) -> Figures:
        """Of these versions together, as heard of in this time."""
        total = Figures()
        for version in versions:
            for at_s, figures in self._slots.get((alias, version), ()):
                if since_s <= at_s <= until_s:
                    total.add(figures)
        return total

    def forget(self, before_s: float) -> None:
        for key, slots in list(self._slots.items()):
            while slots and slots[0][0] < before_s:
                slots.popleft()
            if not slots:
                del self._slots[key]


def breach(watch: Watch, newest: Figures, before: Figures, window: str) -> str:
    """Why the alias should go back, in words with the figures; empty where it should not.

    `before`: what was live before; with fewer requests than the watch asks for it counts as unknown. `window`: in words.
    """
    if newest.num_requests < watch.min_requests:
        return ""
    is_known = before.num_requests >= watch.min_requests
    if newest.error_share > watch.max_error_share and not (is_known and newest.error_share <= before.error_share):
        beside = f"; before: {_errors(before)}" if is_known else ""
        return f"errors: {_errors(newest)}, more than {watch.max_error_share:.4g}{beside}; {window}"
    now_s, then_s = newest.ttft_s, before.ttft_s
    if now_s is None or then_s is None or min(newest.num_timed, before.num_timed) < watch.min_requests:
        return ""
    if now_s > watch.max_ttft_ratio * then_s:
        times = f"{now_s * 1000:.1f} ms, {now_s / then_s:.2f} times the {then_s * 1000:.1f} ms of before"
        return f"median time to first byte: {times}, more than {watch.max_ttft_ratio:.4g} times; {window}"
    return ""


def newest_of(shares: Shares, previous: Shares) -> list[str]:
    """Versions that are served and were not before."""
    before = {share.adapter for share in previous}
    return [share.adapter for share in shares if share.adapter not in before]


def _errors(figures: Figures) -> str:
    return f"{figures.num_errors} of {figures.num_requests} requests ({figures.error_share:.1%})"
