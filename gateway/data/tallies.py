"""How the versions of each alias fare: requests, errors, times to the first byte, gathered from the records of ended requests.

Counted are requests that asked for an alias, by the version that was theirs: who names a version itself, as an evaluation does, is no
traffic of the alias. A request refused because no engine of its model was up tells nothing of a version, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway import failures
from gateway.accesslog import AccessLine
from gateway.errors import NoEngineReady
from gateway.snapshot import Tallies, Tally
from gateway.ttft import bucket_of


class _Row:
    __slots__ = ("num_errors", "num_requests", "ttfts")

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_errors = 0
        self.ttfts: dict[int, int] = {}

    def add(self, line: AccessLine) -> None:
        """Count one request. A refusal is quick: its time says nothing."""
        self.num_requests += 1
        if line.error or line.status >= 400:
            self.num_errors += failures.is_engines(line.status, line.error)
        elif line.ttfb_ms is not None:
            bucket = bucket_of(line.ttfb_ms)
            self.ttfts[bucket] = self.ttfts.get(bucket, 0) + 1


class TallySheet:
    """What control has not been told yet, of one worker."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}

    def add(self, lines: Iterable[AccessLine]) -> None:
        """Count ended requests."""
        for line in lines:
            if line.base and line.model != line.resolved and line.error != NoEngineReady.code:
                key = (line.model, line.resolved)
                row = self._rows.get(key)
                if row is None:
                    row = self._rows[key] = _Row()
                row.add(line)

    def take(self) -> Tallies | None:
        """Return what there is, and start anew; None of nothing."""
        if not self._rows:
            return None
        rows, self._rows = self._rows, {}
        return Tallies(
            tuple(
                Tally(alias, version, row.num_requests, row.num_errors, row.ttfts)
                for (alias, version), row in rows.items()
            )
        )
