"""A script with torch in a process of its own, asked in JSON lines, one question at a time."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks.child import ChildError

START_S = 300.0
_LINE_BYTES = 1 << 24


class TorchChild:
    """One running script."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        return self._process.returncode

    async def ask(self, **task: Any) -> dict[str, Any]:
        """Its answer. Raises ChildError when it has ended, or refuses."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(orjson.dumps(task) + b"\n")
            await self._process.stdin.drain()
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
            tail = "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-10:])
            raise ChildError(f"the process with torch ended with exit code {self._process.returncode}\n{tail}")
        found: dict[str, Any] = orjson.loads(line)
        if "error" in found:
            raise ChildError(f"the process with torch cannot start: {found['error']}")
        return found

    async def close(self) -> None:
        """Kill its group: it holds nothing worth keeping, and nobody waits for a batch of minutes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def torch_child(python: str, script: str, words: Sequence[str], log: Path) -> AsyncIterator[TorchChild]:
    """The script of this package, run by that interpreter, ready. Raises ChildError."""
    argv = (python, str(Path(__file__).with_name(script)), *words)
    with log.open("wb") as errors:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True,
                limit=_LINE_BYTES,
            )  # fmt: skip
        except OSError as exc:
            raise ChildError(f"{python} cannot be started: {exc.strerror or exc}") from exc
    child = TorchChild(process, log)
    try:
        await _ready(child, script)
        yield child
    finally:
        await child.close()


async def _ready(child: TorchChild, script: str) -> None:
    try:
        await asyncio.wait_for(child.answer(), START_S)
    except TimeoutError as exc:
        raise ChildError(f"{script} was not ready within {START_S:g} s") from exc
