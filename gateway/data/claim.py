"""What a request for an adapter has beside the others: the version that it is bound to, and its waits for it."""

from __future__ import annotations

from collections.abc import Collection

import orjson

from gateway.data.adapterline import AdapterLine, Waiter
from gateway.data.snapshot import Index
from gateway.errors import AdapterNotReady

WAIT_HEADER = "x-forgegate-adapter-wait-ms"
MAX_ABSENCES = 3
"""How often a request goes elsewhere or waits again because a replica did not know the adapter."""


class Claim:
    """One request's claim on one version. It waits `adapter_wait_s` in all, however often it has to."""

    __slots__ = ("_entered_s", "_line", "_waiter", "is_waiting", "name", "num_absences", "waited_s")

    def __init__(self, name: str, line: AdapterLine, waiter: Waiter) -> None:
        self.name = name
        self._line = line
        self._waiter = waiter
        self._entered_s = 0.0
        self.is_waiting = False
        self.num_absences = 0
        self.waited_s: float | None = None
        """None for a request that did not have to wait."""

    def enter(self, index: Index, tried: Collection[str], now_s: float) -> float:
        """Begin to wait for a replica, `tried` ones only once they were without it; returns until when. Raises AdapterNotReady."""
        self._line.enter(self._waiter, self.name, index, tried)
        self.is_waiting = True
        self._entered_s = now_s
        self.waited_s = self.waited_s or 0.0
        return now_s + index.snapshot.adapter_wait_s - self.waited_s

    def leave(self, now_s: float) -> None:
        """The wait is over, in whichever way."""
        if self.is_waiting:
            self.is_waiting = False
            self._line.leave(self._waiter)
            self.waited_s = (self.waited_s or 0.0) + now_s - self._entered_s

    @property
    def wait_ms(self) -> float | None:
        """All waits so far; None for a request that had none."""
        return None if self.waited_s is None else int(self.waited_s * 1e6) / 1e3

    def header_line(self) -> bytes:
        """Return the line that tells the client how long it waited; empty for a request that did not."""
        return b"" if self.waited_s is None else b"%b: %d\r\n" % (WAIT_HEADER.encode(), self.waited_s * 1000)

    def too_late(self, index: Index) -> AdapterNotReady:
        """Return the answer once the time to wait is over."""
        message = f"the adapter {self.name} was not loaded within {index.snapshot.adapter_wait_s:g} s"
        return AdapterNotReady(message, param="model", retry_after_s=index.retry_after_s(self.name))


def is_denial(answer: bytes, name: str) -> bool:
    """Return whether the body of an engine's 404 says that it does not know the model `name`.

    Our engine says so with the code `model_not_found`; vLLM with the type `NotFoundError`, which it also has for other
    things, and a message that names the model.
    """
    try:
        error = orjson.loads(answer)["error"]
        if error.get("code") == "model_not_found":
            return True
        return "notfound" in str(error.get("type")).lower().replace("_", "") and name in str(error.get("message"))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return False
