"""One JSON line for each request: who asked what, who answered, how long it took, and why it went where it went.

Never a body, never a key (only its name). The relay gathers the lines and hands them over by timer, a whole number of
lines per write, so that several workers may share one file. The metrics are fed from the same lines.
"""

from __future__ import annotations

import os

import msgspec


class AccessLine(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The fields, in the order in which they are written."""

    time: float
    """Unix seconds at the end of the request."""
    request_id: str
    client: str
    method: str
    path: str
    model: str = ""
    """As asked for; empty where the request named none that exists."""
    resolved: str = ""
    """`name@digest12` of the model that answered, or the version of the adapter."""
    base: str = ""
    """The model under the adapter; empty where none was asked for."""
    engine: str = ""
    status: int
    """What ended the request: 499 a client that left; of a stream that had begun with 200 also 502, 504, or what an engine's error says."""
    queue_ms: float = 0.0
    """From the complete request until it was sent to the engine."""
    adapter_wait_ms: float | None = None
    """Part of that which went by until an engine held the adapter; null where one did from the start."""
    engine_wait_ms: float | None = None
    """Part of it which went by until an engine had started; null where one was ready, and for adapters, whose wait includes it."""
    ttfb_ms: float | None = None
    """Until the first byte of the answer's body; null where none came."""
    duration_ms: float
    bytes: int = 0
    """Received from the engine as body, chunk framing included."""
    retries: int = 0
    why: str = ""
    """Routing receipt."""
    error: str = ""
    """Code of the failure, empty on success."""
    key: str = ""
    """Name of the API key."""


class AccessLog:
    """Appends lines to a file descriptor, or drops them where there is none."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._encoder = msgspec.json.Encoder()

    @classmethod
    def open(cls, target: str) -> AccessLog:
        """Open the log named by `target`: a path, `-` for standard output, empty for none. Raises OSError."""
        if not target:
            return cls(None)
        if target == "-":
            return cls(1)
        return cls(os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640))

    def write(self, lines: list[AccessLine]) -> None:
        """Append `lines`, all of them in one write where the file takes it. A full disk loses lines, never requests."""
        if not lines or self._fd is None:
            return
        pending = memoryview(self._encoder.encode_lines(lines))
        try:
            while pending:
                pending = pending[os.write(self._fd, pending) :]
        except OSError:
            return
