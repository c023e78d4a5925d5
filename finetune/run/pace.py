"""How fast a run goes, from its events: for what is shown while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

RECENT = 30
SMOOTHING = 0.9


class Pace:
    """Follows the steps of one run over all its attempts."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.loss: float | None = None
        """Smoothed."""
        self._step = 0
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._tokens: deque[int] = deque(maxlen=RECENT)

    def add(self, event: Mapping[str, Any]) -> None:
        """Any event."""
        if event["event"] == "start":
            self.num_steps = int(event["num_steps"])
            self._seconds.clear()
            self._tokens.clear()
        if event["event"] != "step":
            return
        self._step = int(event["step"])
        if event.get("seconds"):
            self._seconds.append(float(event["seconds"]))
            self._tokens.append(int(event.get("num_tokens") or 0))
        loss = event.get("loss")
        if loss is not None and loss == loss:
            self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss

    @property
    def tok_s(self) -> float | None:
        """Real tokens a second of the latest steps."""
        seconds = sum(self._seconds)
        return sum(self._tokens) / seconds if seconds else None

    @property
    def left_s(self) -> float | None:
        """Without evaluations and checkpoints."""
        if not self._seconds or not self.num_steps:
            return None
        return sum(self._seconds) / len(self._seconds) * max(0, self.num_steps - self._step)
