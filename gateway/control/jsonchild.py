"""A child that tells in JSON lines what it does: each is passed on as it comes, the last one is the outcome."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from typing import Any

from backends.base import LaunchSpec
from backends.logring import LogRing
from backends.process import Launcher, exit_words

MAX_LINE_BYTES = 8 * 1024 * 1024
"""A manifest lists what its upload's files say of themselves."""
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the child ended; `last` is its last event that is no progress."""

    code: int
    last: dict[str, Any] = field(default_factory=dict)
    last_words: str = ""
    """What it said last beside its events, for one that ended without an outcome."""

    @property
    def event(self) -> str:
        return str(self.last.get("event", ""))

    @property
    def words(self) -> str:
        """Why it did not do what it should."""
        said = str(self.last.get("message", "")) or self.last_words
        return said or f"it ended without a word ({exit_words(self.code)})"


async def run_child(launcher: Launcher, spec: LaunchSpec, tell: Tell, limit_s: float) -> Outcome:
    """Until it ends; the child is dead when this returns, in whatever way. Raises SpawnFailed, TimeoutError."""
    read_fd, write_fd = os.pipe()
    # Closed here as well as by whoever reads: the caller may be cancelled before anybody does.
    with os.fdopen(read_fd, "rb", 0) as reader:
        return await _run(launcher, spec, tell, limit_s, reader, write_fd)


async def _run(
    launcher: Launcher, spec: LaunchSpec, tell: Tell, limit_s: float, reader: FileIO, write_fd: int
) -> Outcome:
    log = LogRing()
    try:
        child = await launcher.spawn(spec, log, stdout_fd=write_fd)
    finally:
        os.close(write_fd)
    try:
        async with asyncio.timeout(limit_s):
            last = await _read(reader, tell)
            code = await child.wait()
    finally:
        child.kill()
        await asyncio.shield(asyncio.wait({child.end}, timeout=5.0))
    return Outcome(code, last, next(iter(log.tail(1)), ""))


async def _read(file: FileIO, tell: Tell) -> dict[str, Any]:
    """Until the child closes its output."""
    stream = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), file
    )
    last: dict[str, Any] = {}
    try:
        while line := await stream.readline():
            event = _event(line)
            if event.get("event") == "progress":
                tell(event)
            elif "event" in event:
                last = event
    finally:
        transport.close()
    return last


def _event(line: bytes) -> dict[str, Any]:
    """Empty for what is none: a library may print to standard output, too."""
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}
