"""The time in which requests let an engine be, since its last start failed."""

from __future__ import annotations

from collections.abc import Callable

from backends.restart import RestartPolicy

RETELL_S = 5.0


class Pause:
    def __init__(self, policy: RestartPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._num_failed = 0
        self._until = 0.0

    def begin(self) -> None:
        """A start has failed, or was not let in."""
        self._num_failed += 1
        self._until = self._clock() + self._policy.pause_s(self._num_failed)

    def forget(self) -> None:
        """A start went well."""
        self._num_failed, self._until = 0, 0.0

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0.0

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._clock()) if self._num_failed else 0.0

    @property
    def retell_s(self) -> float:
        """After this, what is left is to be told anew."""
        return min(RETELL_S, self.left_s)
