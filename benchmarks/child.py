"""A server as a child process: started in its own process group, watched until it answers, ended with all it started."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Client

STOP_S = 15.0


class ChildError(RuntimeError):
    """The child did not start; the message holds its last lines."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server. `ready_path` answers 200 once it serves."""

    argv: tuple[str, ...]
    ready_path: str
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of this process's own."""


class Child:
    """Runs one launch; output goes to `log`."""

    def __init__(self, launch: Launch, log: Path, cpus: Sequence[int] = ()) -> None:
        self._launch = launch
        self._log = log
        with log.open("wb") as output, _affinity(cpus):
            self._process = subprocess.Popen(
                launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the child itself, which leads the group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    async def wait_ready(self, client: Client, timeout_s: float) -> None:
        """Raises ChildError when it exits or does not get ready in time."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            if (code := self._process.poll()) is not None:
                raise ChildError(f"{self._launch.argv[0]} ended with exit code {code}\n{self.tail()}")
            if (await client.get(self._launch.ready_path)).status == 200:
                return
            if time.monotonic() > deadline_s:
                raise ChildError(f"{self._launch.argv[0]} was not ready within {timeout_s:g} s\n{self.tail()}")
            await asyncio.sleep(0.1)

    def tail(self, num_lines: int = 15) -> str:
        """Its last lines."""
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-num_lines:])

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for the whole group; returns when the child has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def _affinity(cpus: Sequence[int]) -> Iterator[None]:
    """A child inherits the affinity that its parent has when it forks."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
