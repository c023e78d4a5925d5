"""Installing an environment: a new folder, a venv, pip, a probe; only then it takes the place of the old one."""

from __future__ import annotations

import asyncio
import errno
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Protocol

from backends.base import LaunchSpec
from backends.environments.causes import diagnose
from backends.environments.errors import EnvironmentRefused, InstallFailed
from backends.environments.folders import Folders, Record, size_of
from backends.environments.interpreter import Interpreter, examine
from backends.environments.package import Package, write_wheel
from backends.environments.plan import Facts, Index, Step, advice, refusal, steps
from backends.environments.table import Environment, pin_files, pins_of
from backends.logring import LogRing
from backends.process import Launcher, exit_words

PROBE_ARGV = ("-I", "-W", "ignore", "-c")
KEPT_LINES = 5000
_PIP_ENV = dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_DRY_RUN", "PIP_REPORT"), "")
"""pip ignores what is empty. Where packages go is ours to say; where they come from stays the user's."""


class Show(Protocol):
    """What the user sees of it."""

    def step(self, words: str) -> None:
        """A part of the work begins, or something is worth a line."""

    def line(self, words: str) -> None:
        """The child that works says this."""


@dataclass(frozen=True, slots=True)
class Order:
    """What shall be installed, and where."""

    environment: Environment
    envs: Path
    log: Path
    package: Package
    facts: Callable[[tuple[str, ...]], Facts]
    """Of this machine, given the pins."""
    python: str = ""
    """Empty: the one that it was made with before, else `default_python`."""
    default_python: str = ""
    index: Index = field(default_factory=Index)

    @property
    def folders(self) -> Folders:
        return Folders(self.envs, self.environment.name)


@dataclass(frozen=True, slots=True)
class Installed:
    record: Record
    folder: Path
    is_new: bool
    in_use: tuple[Path, ...] = ()
    """Older ones that a process still runs."""


def why_outdated(record: Record, environment: Environment, package: Package) -> str:
    """What is not as it would be installed now, in words; empty where nothing is."""
    if record.pins != pins_of(environment):
        return "its packages are not those pinned now"
    if not environment.has_forgegate:
        return ""
    if record.forgegate != package.version:
        return f"it has forgegate {record.forgegate}, this is {package.version}"
    has_changed = record.digest != package.digest and not package.is_checkout
    return "forgegate's own code has changed" if has_changed else ""


def install(order: Order, show: Show, clock: Callable[[], float] = time.monotonic) -> Installed:
    """Blocks. Raises EnvironmentRefused, InstallFailed; then what was there before is there still, and works."""
    folders = order.folders
    if folders.is_own():
        raise EnvironmentRefused(f"{folders.link} is an environment of your own making: move it away, or remove it")
    try:
        _require_device(order, show)
        with folders.locked(show.step):
            folders.sweep()
            current, record = folders.current(), folders.record()
            if current is not None and record is not None and _is_right(order, record, current):
                return Installed(record, current, is_new=False)
            return _build_anew(order, _interpreter(order, record), show, clock)
    except OSError as exc:
        raise _disk(exc, folders.envs) from exc


def _is_right(order: Order, record: Record, current: Path) -> bool:
    is_same_python = not order.python or examine(order.python).path == record.python
    is_whole = (current / "bin" / "python").exists()
    return is_whole and is_same_python and not why_outdated(record, order.environment, order.package)


def _interpreter(order: Order, record: Record | None) -> Interpreter:
    if order.python:
        return examine(order.python)
    return examine(record.python if record is not None and Path(record.python).exists() else order.default_python)


def _build_anew(order: Order, interpreter: Interpreter, show: Show, clock: Callable[[], float]) -> Installed:
    start = clock()
    folders = order.folders
    _require_room(order)
    folder = folders.make()
    try:
        asyncio.run(_build(order, interpreter, folder, show))
        record = Record(
            name=order.environment.name, forgegate=order.package.version, digest=order.package.digest,
            pins=pins_of(order.environment), python=interpreter.path, python_version=interpreter.version,
            installed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), install_s=round(clock() - start, 1),
            size_bytes=size_of(folder),
        )  # fmt: skip
        folders.switch(folder, record)
    finally:
        kept = folders.sweep()  # what failed, or what was replaced
    return Installed(record, folder, is_new=True, in_use=tuple(kept))


def _require_device(order: Order, show: Show) -> None:
    if not order.environment.device:
        return
    facts = order.facts(pins_of(order.environment))
    if why := refusal(order.environment, facts):
        raise InstallFailed(why)
    if better := advice(order.environment, facts):
        show.step(better)


def _require_room(order: Order) -> None:
    free_bytes, needed_bytes = shutil.disk_usage(order.envs).free, order.environment.size_bytes
    if free_bytes < needed_bytes:
        raise InstallFailed(
            f"{order.environment.name} takes about {needed_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free in "
            f"{order.envs}; free some space, or set FORGEGATE_HOME to another disk"
        )


def _disk(exc: OSError, envs: Path) -> InstallFailed:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return InstallFailed(
            f"the disk is full: {envs} takes no more; free some space, or set FORGEGATE_HOME to another disk"
        )
    return InstallFailed(f"{exc.filename or envs}: {exc.strerror or exc}")


# The work -------------------------------------------------------------------------------------------------------------


async def _build(order: Order, interpreter: Interpreter, folder: Path, show: Show) -> None:
    with suppress(FileNotFoundError):
        order.log.unlink()
    launcher = await Launcher.start()
    try:
        worker = _Worker(order, folder, show, launcher)
        show.step(f"Python {interpreter.version} ({interpreter.path})")
        await worker.require("making the environment", interpreter.path, "-I", "-m", "venv", str(folder))
        with ExitStack() as stack:
            await worker.install_all(stack)
        show.step("trying it")
        await worker.require("trying it", worker.python, *PROBE_ARGV, order.environment.probe)
    finally:
        await launcher.close()


class _Worker:
    """Runs the children of one install."""

    def __init__(self, order: Order, folder: Path, show: Show, launcher: Launcher) -> None:
        self.python = str(folder / "bin" / "python")
        self._order = order
        self._folder = folder
        self._show = show
        self._launcher = launcher

    async def install_all(self, stack: ExitStack) -> None:
        order, parts = self._order, self._folder / "parts"
        parts.mkdir()
        try:
            wheel = await asyncio.to_thread(write_wheel, order.package, parts)
            pins = pins_of(order.environment)
            files = tuple(stack.enter_context(resources.as_file(file)) for file in pin_files(order.environment))
            for step in steps(order.environment, pins, files, wheel, order.index, order.facts(pins)):
                self._show.step(step.words)
                await self._install(step)
        finally:
            shutil.rmtree(parts, ignore_errors=True)

    async def _install(self, step: Step) -> None:
        problem: InstallFailed | None = None
        for choice in step.choices:
            if problem is not None:
                self._show.line(str(problem))
            problem = await self._try(step, choice)
            if problem is None:
                return
        assert problem is not None
        raise problem

    async def _try(self, step: Step, choice: Sequence[str]) -> InstallFailed | None:
        # A build that does not run here is replaced by the next choice, though its version is the same.
        again = ("--force-reinstall",) if step.check else ()
        argv = (
            "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
            "--no-compile", *again, *choice,
        )  # fmt: skip
        try:
            await self.require(f"installing {step.words}", self.python, *argv)
            if step.check:
                await self.require(f"trying {step.words}", self.python, *PROBE_ARGV, step.check)
        except InstallFailed as exc:
            return exc
        return None

    async def require(self, words: str, *argv: str) -> None:
        """Run a child to its end. Raises InstallFailed with the reason, as far as its output shows it."""
        output = _Output(self._order.log, self._show)
        output.note(f"$ {' '.join(argv)}")
        child = await self._launcher.spawn(LaunchSpec(argv, _PIP_ENV), output)
        try:
            code = await child.wait()
        finally:
            child.kill()
            output.close()
        if code == 0:
            return
        why, fix = diagnose(output.tail(KEPT_LINES))
        ended = f" ({exit_words(code)})" if code < 0 else ""
        raise InstallFailed(
            f"{self._order.environment.name} was not installed: {words} failed{ended}: {why}; {fix}. Log: {self._order.log}"
        )


class _Output(LogRing):
    """To the log, and to the user's eyes."""

    def __init__(self, log: Path, show: Show) -> None:
        super().__init__(log, KEPT_LINES)
        self._show = show

    def note(self, line: str) -> None:
        """Into the log only."""
        self._append(line)

    def add(self, line: str) -> None:
        super().add(line)
        self._show.line(line)
