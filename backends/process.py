"""Children in process groups of their own, and the guardian that ends them when this process dies.

launcher = await Launcher.start()
child = await launcher.spawn(LaunchSpec(...), LogRing(...))
code = await child.wait()
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from backends import guardian
from backends.base import LaunchSpec
from backends.errors import SpawnFailed
from backends.logring import LogRing

REFUSED = 3
"""Exit code of a child that refuses its configuration: trying again would end the same way."""

LAST_OUTPUT_S = 1.0
"""For what a dead child's group wrote last, and for its processes to be gone."""


class Child:
    """A running child that leads its own process group. Its output goes to `log`."""

    def __init__(
        self, process: asyncio.subprocess.Process, marker: str, log: LogRing, output: asyncio.Task[None]
    ) -> None:
        self.pid = process.pid
        self.log = log
        self._process = process
        self._marker = marker
        self._output = output
        self.end = asyncio.create_task(self._follow(), name=f"child {process.pid}")
        """Done when it is dead and its group is, too."""

    async def wait(self) -> int:
        """Its exit code, negative for a signal. What it left of its group is killed, its last output is in the log."""
        return await asyncio.shield(self.end)

    def terminate(self) -> None:
        """Ask the child, not its group, to end: it knows best how to end its own children."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """SIGKILL the whole group, and what left the group but carries this launch's marker."""
        if not self.end.done():  # afterwards the number may be somebody else's
            self._kill()

    async def _follow(self) -> int:
        code = await self._process.wait()
        self._kill()
        # The pipe ends with the last process that holds it; all of them were just killed, and one that takes its time is not waited for.
        await asyncio.wait({self._output}, timeout=LAST_OUTPUT_S)
        self._output.cancel()
        await asyncio.wait({self._output})
        return code

    def _kill(self) -> None:
        guardian.kill_group(self.pid)
        guardian.kill_marked(self._marker)


class Launcher:
    """Starts children, each announced to the guardian; one per control process."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(8)
        self._num_launches = 0
        self._guardian: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._children: set[Child] = set()

    @classmethod
    async def start(cls) -> Launcher:
        """With its guardian running. Raises SpawnFailed."""
        launcher = cls()
        await launcher._start_guardian()
        launcher._watcher = asyncio.create_task(launcher._keep_guardian(), name="guardian watcher")
        return launcher

    async def spawn(
        self, spec: LaunchSpec, log: LogRing, pass_fds: tuple[int, ...] = (), stdout_fd: int | None = None
    ) -> Child:
        """`stdout_fd` takes the child's standard output in place of `log`. Raises SpawnFailed."""
        self._num_launches += 1
        marker = f"{self._run}.{self._num_launches}."
        read_fd, write_fd = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=write_fd if stdout_fd is None else stdout_fd,
                stderr=write_fd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **spec.env, guardian.MARKER_VARIABLE: marker},
                cwd=spec.cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except OSError as exc:
            os.close(read_fd)
            raise SpawnFailed(f"cannot start {spec.argv[0]}: {exc.strerror or exc}") from exc
        finally:
            os.close(write_fd)
        self._tell(f"+{process.pid}\n")
        child = Child(process, marker, log, asyncio.create_task(_read_output(read_fd, log), name="child output"))
        self._children.add(child)
        child.end.add_done_callback(lambda _: self._forget(child))
        return child

    async def close(self) -> None:
        """Kill what still runs and let the guardian go."""
        for child in self._children:
            child.kill()
        if self._children:
            await asyncio.wait({child.end for child in self._children}, timeout=5.0)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.close()
            await self._guardian.wait()

    @property
    def guardian_pid(self) -> int:
        return self._guardian.pid if self._guardian is not None else 0

    def _forget(self, child: Child) -> None:
        self._children.discard(child)
        self._tell(f"-{child.pid}\n")

    def _tell(self, line: str) -> None:
        # A guardian that is just being replaced is told everything anew.
        if self._guardian is not None and self._guardian.stdin is not None and not self._guardian.stdin.is_closing():
            self._guardian.stdin.write(line.encode())

    async def _start_guardian(self) -> None:
        try:
            self._guardian = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", guardian.__file__, f"{self._run}.",
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            raise SpawnFailed(f"cannot start the guardian: {exc.strerror or exc}") from exc
        for child in self._children:
            self._tell(f"+{child.pid}\n")

    async def _keep_guardian(self) -> None:
        while self._guardian is not None:
            await self._guardian.wait()
            await asyncio.sleep(0.1)  # a machine that kills it again and again shall not be kept busy by us
            await self._start_guardian()


async def _read_output(fd: int, log: LogRing) -> None:
    """Not through asyncio's subprocess pipes: Process.wait() of some Python versions waits for those, and a grandchild may
    hold them open long after the child's death."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0))
    try:
        while data := await reader.read(65536):
            log.feed(data)
    finally:
        log.flush()
        transport.close()


def exit_words(code: int) -> str:
    """How a child ended, for people: `exit code 1`, `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def import_path() -> str:
    """PYTHONPATH under which children find these packages when they run from a checkout; empty when they are installed.

    An environment's site-packages is never put there: another interpreter would pick up everything that lies in it.
    """
    root = Path(__file__).resolve().parents[1]
    return "" if root.name in ("site-packages", "dist-packages") else str(root)
