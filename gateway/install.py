"""`forgegate install`: environments of engines and of the trainer, apart from each other and from forgegate's own."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console

from backends.environments.build import Installed, Order, install, why_outdated
from backends.environments.errors import EnvironmentRefused
from backends.environments.folders import Folders, size_of
from backends.environments.interpreter import has_nvidia
from backends.environments.package import Package, running_package
from backends.environments.plan import Index, facts_of
from backends.environments.table import ENVIRONMENTS, Environment, find
from backends.plan import size_words
from gateway.exits import DONE, UsageError
from gateway.home import Home
from gateway.table import print_table

EXAMPLE = """An environment is built beside the old one and takes its place when everything in it works; what fails or is stopped
leaves the old one as it is. pip's own configuration (pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, proxies) is honoured.

environments:
{environments}

examples:
  forgegate install trainer
  forgegate install llamacpp --find-links ~/wheels --no-index
  forgegate install --list
  forgegate install --upgrade            all that are outdated
  forgegate install --remove trainer
"""
LINE_EVERY_S = 5.0


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    _require_sense(args)
    home = Home.from_env()
    if args.list:
        return _list(home, args.json)
    if args.remove:
        return _remove(home, find(args.remove))
    home.ensure()
    package = running_package()
    for environment in _chosen(args, home):
        _install(environment, args, home, package)
    return DONE


def parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {each.name:<10} {each.purpose}" for each in ENVIRONMENTS.values())
    parser = argparse.ArgumentParser(
        "forgegate install", description="Install the environment of an engine, or bring it up to date.",
        epilog=EXAMPLE.format(environments=rows), formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of: {', '.join(ENVIRONMENTS)}")
    parser.add_argument("--list", action="store_true", help="what is installed, and whether it is up to date")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.add_argument("--upgrade", action="store_true", help="only what is installed already; without NAME all of it")
    parser.add_argument("--remove", metavar="NAME", help="remove this environment")
    parser.add_argument(
        "--python", metavar="PATH", default="", help="interpreter (default: the one of before, else forgegate's own)"
    )
    parser.add_argument("--index-url", metavar="URL", default="", help="as pip's")
    parser.add_argument("--find-links", metavar="PLACE", action="append", default=[], help="as pip's; may be repeated")
    parser.add_argument("--no-index", action="store_true", help="as pip's: only what --find-links and pip.conf name")
    return parser


def _require_sense(args: argparse.Namespace) -> None:
    """Raises UsageError, EnvironmentRefused."""
    actions = [name for name in ("list", "remove", "upgrade") if getattr(args, name)]
    if len(actions) > 1:
        raise UsageError(f"--{actions[0]} and --{actions[1]} exclude each other")
    if args.names and actions in (["list"], ["remove"]):
        raise UsageError(f"--{actions[0]} takes no further NAME: {' '.join(args.names)}")
    if args.json and not args.list:
        raise UsageError("--json goes with --list")
    is_install = actions not in (["list"], ["remove"])
    if not is_install and (args.python or args.index_url or args.find_links or args.no_index):
        raise UsageError(
            f"--{actions[0]} installs nothing: it takes no --python, --index-url, --find-links, --no-index"
        )
    if is_install and not args.names and not args.upgrade:
        raise UsageError(f"which environment? forgegate install {' | '.join(ENVIRONMENTS)}, or --list")
    for name in args.names:
        find(name)


def _chosen(args: argparse.Namespace, home: Home) -> list[Environment]:
    """Raises UsageError where an upgrade has nothing to upgrade."""
    if not args.upgrade:
        return [find(name) for name in dict.fromkeys(args.names)]
    present = {name: each for name, each in ENVIRONMENTS.items() if Folders(home.envs, name).current() is not None}
    absent = [name for name in args.names if name not in present]
    if absent:
        raise UsageError(f"{', '.join(absent)}: not installed, so not upgraded: forgegate install {' '.join(absent)}")
    if not present:
        raise UsageError("nothing is installed yet: forgegate install NAME")
    return [present[name] for name in dict.fromkeys(args.names or present)]


# install --------------------------------------------------------------------------------------------------------------


def _install(environment: Environment, args: argparse.Namespace, home: Home, package: Package) -> None:
    order = Order(
        environment, home.envs, home.logs / f"install-{environment.name}.log", package,
        lambda pins: facts_of(platform.system(), has_nvidia(), os.environ, pins),
        python=args.python, default_python=sys.executable,
        index=Index(args.index_url, tuple(args.find_links), args.no_index),
    )  # fmt: skip
    print(f"{environment.name}: {environment.purpose}", file=sys.stderr)
    try:
        with make_show(sys.stderr) as show:
            installed = install(order, show)
    except KeyboardInterrupt:
        print(f"stopped; {environment.name} is as it was before", file=sys.stderr)
        raise
    _tell(order, installed)


def _tell(order: Order, installed: Installed) -> None:
    record = installed.record
    if not installed.is_new:
        print(f"{record.name} is up to date: {order.folders.link}")
        return
    own = f"forgegate {record.forgegate}, " if order.environment.has_forgegate else ""
    print(
        f"{record.name} installed in {record.install_s:.0f} s, {size_words(record.size_bytes)}: {order.folders.link} "
        f"({own}Python {record.python_version})"
    )
    for folder in installed.in_use:
        print(f"a process still runs {folder}: the next install removes it", file=sys.stderr)


class Lines:
    """For logs: every step, and every few seconds what goes on."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_s = clock()

    def step(self, words: str) -> None:
        self._write(f"  {words}")

    def line(self, words: str) -> None:
        if words.strip() and self._clock() - self._shown_s >= LINE_EVERY_S:
            self._write(f"    {words.strip()[:160]}")

    def _write(self, words: str) -> None:
        self._shown_s = self._clock()
        print(words, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Spinner:
    """For people at a terminal: steps stay, the line below them changes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=stream, highlight=False, markup=False)
        self._status = self._console.status("")
        self._clock = clock
        self._start_s = clock()

    def step(self, words: str) -> None:
        self._console.print(f"  {words}", soft_wrap=True)
        self._start_s = self._clock()

    def line(self, words: str) -> None:
        width = max(20, self._console.width - 14)
        self._status.update(f"{self._clock() - self._start_s:4.0f} s  {words.strip()[:width]}".replace("[", r"\["))

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()


def make_show(stream: TextIO) -> Lines | Spinner:
    return Spinner(stream) if stream.isatty() else Lines(stream)


# list and remove ------------------------------------------------------------------------------------------------------


def state_of(environment: Environment, envs: Path, package: Package) -> dict[str, Any]:
    """One row of the list. `state`: current, outdated, broken, own (made by the user), absent."""
    folders = Folders(envs, environment.name)
    record = folders.record()
    state, why = "absent", f"forgegate install {environment.name}"
    if folders.is_own():
        state, why = "own", "made by you: used as it is"
    elif folders.link.is_symlink():
        state, why = _judge(environment, folders, package)
    is_there = state not in ("absent", "own")
    return {
        "name": environment.name,
        "state": state,
        "why": why,
        "note": environment.note,
        "forgegate": record.forgegate if record and is_there and environment.has_forgegate else None,
        "python": record.python_version if record and is_there else None,
        "path": str(folders.link) if is_there or state == "own" else None,
    }


def _judge(environment: Environment, folders: Folders, package: Package) -> tuple[str, str]:
    record = folders.record()
    mend = f"forgegate install {environment.name}"
    if record is None or not (folders.link / "bin" / "python").exists():
        what = "it is not whole" if record is None else f"its Python is gone: {record.python}"
        return "broken", f"{what}: {mend}"
    why = why_outdated(record, environment, package)
    return ("outdated", f"{why}: {mend}") if why else ("current", "")


def _list(home: Home, is_json: bool) -> int:
    package = running_package()
    rows = [
        {**state_of(environment, home.envs, package), "size_bytes": _size(home.envs, name)}
        for name, environment in ENVIRONMENTS.items()
    ]
    if is_json:
        print(json.dumps(rows, indent=2))
        return DONE
    cells = [
        (row["name"], row["state"], row["forgegate"] or "-", row["python"] or "-",
         "-" if row["size_bytes"] is None else size_words(row["size_bytes"]), row["path"] or row["why"])
        for row in rows
    ]  # fmt: skip
    print_table(("name", "state", "forgegate", "python", "size", "path"), cells)
    for row in rows:
        if row["state"] in ("outdated", "broken"):
            print(f"{row['name']}: {row['why']}", file=sys.stderr)
        if row["note"]:
            print(f"{row['name']}: {row['note']}", file=sys.stderr)
    return DONE


def _size(envs: Path, name: str) -> int | None:
    current = Folders(envs, name).current()
    return None if current is None else size_of(current)


def _remove(home: Home, environment: Environment) -> int:
    folders = Folders(home.envs, environment.name)
    if folders.is_own():
        raise EnvironmentRefused(f"{folders.link} is an environment of your own making: remove it yourself")
    if not folders.link.is_symlink():
        raise EnvironmentRefused(f"{environment.name} is not installed")
    with folders.locked(lambda words: print(words, file=sys.stderr)):
        folders.remove()
    print(f"{environment.name} removed")
    return DONE
