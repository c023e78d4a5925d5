"""How long the last start of each thing took: one small JSON file. Its one writer is the control process."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from backends.atomicfile import atomic_path

FILE = "start-times.json"
MAX_KEYS = 500
"""Beyond these the ones noted longest ago are forgotten."""


class StartTimes:
    """By key, whatever the caller thinks decides how long a start takes.

    It only makes waiting more bearable: a file that is absent, damaged or cannot be written costs nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds = _read(path)

    def last(self, key: str) -> float | None:
        """Seconds; None where it never started here."""
        return self._seconds.get(key)

    def note(self, key: str, seconds: float) -> None:
        self._seconds.pop(key, None)
        self._seconds[key] = round(seconds, 1)
        for oldest in list(self._seconds)[:-MAX_KEYS]:
            del self._seconds[oldest]
        with suppress(OSError), atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self._seconds, indent=0), encoding="utf-8")


def _read(path: Path) -> dict[str, float]:
    """In the order in which they were noted."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: float(seconds) for key, seconds in content.items() if _is_time(seconds)}


def _is_time(seconds: object) -> bool:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return False
    return math.isfinite(seconds) and seconds >= 0
