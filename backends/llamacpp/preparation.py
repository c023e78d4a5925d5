"""The GGUF of a model folder, derived by a child in the engine's environment. Imports neither llama_cpp nor numpy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import LaunchSpec, Places, Tell
from backends.errors import PrepareFailed
from backends.llamacpp.toolkit import PROGRESS
from backends.logring import LogRing
from backends.pythons import import_env

if TYPE_CHECKING:
    from backends.process import Launcher


async def prepared(launcher: Launcher, python: str, folder: Path, places: Places, converter: str, tell: Tell) -> Path:
    """Where it lies; made at first use. `converter`: the interpreter of llama.cpp's, empty where ours does it. Raises PrepareFailed."""
    argv = (
        python, "-P", "-m", "backends.llamacpp.prepare", str(folder), str(places.models_dir), str(places.tools_dir), converter,
    )  # fmt: skip
    log = _Progress(tell)
    child = await launcher.spawn(LaunchSpec(argv, import_env()), log)
    try:
        code = await child.wait()
    finally:
        child.kill()
    last = (log.tail(1) or ("no output",))[0]
    if code != 0:
        raise PrepareFailed(f"{folder} cannot be converted: {last.removeprefix('error: ')}")
    return Path(last)


class _Progress(LogRing):
    """What the converting child says; its progress goes to the user."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def add(self, line: str) -> None:
        super().add(line)
        if line.startswith(PROGRESS):
            self._tell(line.removeprefix(PROGRESS))
