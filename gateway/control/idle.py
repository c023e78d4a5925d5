"""How long each engine has had no request, from the counters that all workers share: also a request that began and ended between
two looks is seen. Pure; the caller brings the clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Seen:
    num_sent: int
    last_use: float


class Idle:
    """`look` regularly; what was not looked at has been idle since it was first."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self, engine_id: str, num_running: int, num_sent: int, now: float) -> float:
        """Returns for how long it has been idle, in seconds."""
        seen = self._seen.setdefault(engine_id, _Seen(num_sent, now))
        if num_running or num_sent != seen.num_sent:
            seen.num_sent, seen.last_use = num_sent, now
        return now - seen.last_use

    def begin(self, engine_id: str, now: float) -> None:
        """It takes traffic from now on."""
        if engine_id in self._seen:
            self._seen[engine_id].last_use = now

    def last_use(self, engine_id: str) -> float:
        """Clock reading; 0 for one that was not looked at."""
        return self._seen[engine_id].last_use if engine_id in self._seen else 0.0
