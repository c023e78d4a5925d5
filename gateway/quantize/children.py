"""Children of `forgegate quantize`: started, listened to, ended; what they refuse is the command's error."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any, Protocol

from backends.base import LaunchSpec, Places
from backends.errors import EngineUnavailable
from backends.llamacpp.launch import MODULES, converter_python
from backends.llamacpp.preparation import prepared
from backends.llamacpp.quantize.levels import AWQ
from backends.process import Launcher, exit_words
from backends.pythons import choose_python, environment_python, import_env
from gateway.control.jsonchild import Outcome, run_child
from gateway.exits import CommandError
from gateway.home import Home


class Show(Protocol):
    """What the user sees of it."""

    def note(self, words: str) -> None: ...

    def progress(self, text: str, done: int, total: int) -> None: ...


class WorkFailed(CommandError):
    """A child did not do its work; the message is its own reason."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class Children:
    """Each for one piece of work, in the environment that has what it needs."""

    def __init__(self, launcher: Launcher, home: Home, show: Show) -> None:
        self._launcher = launcher
        self._home = home
        self._show = show
        self._python = ""

    def engine_python(self) -> str:
        """Raises EngineUnavailable."""
        if not self._python:
            self._python = choose_python("llamacpp", MODULES, None, self._home.envs)
        return self._python

    async def work(self, do: str, **task: Any) -> dict[str, Any]:
        """Of `backends.llamacpp.quantize.work`; its last event. Raises WorkFailed, EngineUnavailable."""
        return await self._run(self.engine_python(), "backends.llamacpp.quantize.work", {"do": do, **task})

    async def awq(self, do: str, **task: Any) -> dict[str, Any]:
        """Of `finetune.awq`. Raises WorkFailed, EngineUnavailable."""
        return await self._run(awq_python(self._home), "finetune.awq", {"do": do, **task})

    async def _run(self, python: str, module: str, task: dict[str, Any]) -> dict[str, Any]:
        spec = LaunchSpec((python, "-P", "-m", module, json.dumps(task)), import_env())
        outcome = await run_child(self._launcher, spec, self._tell, math.inf)
        if outcome.event == "done" and outcome.code == 0:
            return outcome.last
        raise WorkFailed(_reason(outcome, module), outcome.code if outcome.code in (2, 3) else 3)

    def _tell(self, event: dict[str, Any]) -> None:
        self._show.progress(str(event["text"]), int(event["done"]), int(event["total"]))

    async def convert(self, folder: Path, is_ours: bool) -> Path:
        """The GGUF of a model folder, derived at first use. Raises PrepareFailed, EngineUnavailable."""
        python = self.engine_python()
        converter = "" if is_ours else converter_python(python, self._home.envs)
        places = Places(self._home.models, self._home.envs)
        return await prepared(self._launcher, python, folder, places, converter, self._show.note)


def awq_python(home: Home) -> str:
    """Raises EngineUnavailable."""
    python = environment_python(home.envs, AWQ)
    if python is None:
        raise EngineUnavailable("AWQ needs its own environment, which is not installed: forgegate install awq")
    return python


def _reason(outcome: Outcome, module: str) -> str:
    """What the child says, or how it died."""
    if outcome.event == "refused":
        return outcome.words
    killed = ", out of memory?" if outcome.code == -signal.SIGKILL else ""
    said = f": {outcome.last_words}" if outcome.last_words else ""
    return f"{module} did not come to an end ({exit_words(outcome.code)}{killed}){said}"
