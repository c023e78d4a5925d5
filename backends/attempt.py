"""One launch of an engine: its child, and what its output says of the end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from backends.base import Backend, LaunchSpec, StartFailure
from backends.logring import LogRing
from backends.process import REFUSED, Child, Launcher
from backends.status import Status

_PORT_TAKEN = re.compile(r"address already in use|port \S+ is (already )?(taken|in use)|\bEADDRINUSE\b", re.IGNORECASE)
ERROR_LINES = 50
EXPLAINED_LINES = 400
_LAUNCH_LINE = "(control) start"


class Attempt:
    """At most one child at a time; `number` counts the launches."""

    def __init__(self, backend: Backend, launcher: Launcher, log: LogRing) -> None:
        self.number = 0
        self.child: Child | None = None
        self._backend = backend
        self._launcher = launcher
        self._log = log

    async def spawn(self, status: Status, on_progress: Callable[[int, str], None]) -> Child | None:
        """None where there is nothing to start. Raises BackendError. `on_progress` hears what the child says of its start."""
        spec = self._backend.launch(status.address.port)
        if spec is None:
            return None
        number = self.number
        self._log.add(f"{_LAUNCH_LINE} {number} on port {status.address.port}")

        def read(line: str) -> None:
            if text := self._backend.progress(line):
                on_progress(number, text)

        self._log.on_line = read
        env = {**spec.env, "FORGEGATE_ENGINE_SECRET": status.secret}
        self.child = await self._launcher.spawn(LaunchSpec(spec.argv, env, spec.cwd), self._log)
        return self.child

    async def end(self) -> None:
        """By force, if it still runs."""
        child, self.child = self.child, None
        if child is not None:
            child.kill()
            await child.wait()

    def error_line(self) -> str:
        """The last `error: ...` line of this launch, without its head; empty where there is none."""
        for line in reversed(self._lines(ERROR_LINES)):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
        return ""

    def is_port_taken(self, code: int) -> bool:
        return code == REFUSED and bool(_PORT_TAKEN.search(self.error_line()))

    async def explain(self) -> StartFailure | None:
        """Why it did not become ready, as its backend reads it off the output; None where that does not tell."""
        return await asyncio.to_thread(self._backend.explain, self._lines(EXPLAINED_LINES))

    def _lines(self, num_lines: int) -> list[str]:
        """The newest lines of this launch."""
        lines = list(self._log.tail(num_lines))
        starts = [index for index, line in enumerate(lines) if line.startswith(_LAUNCH_LINE)]
        return lines[starts[-1] + 1 :] if starts else lines
