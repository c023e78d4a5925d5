"""Which interpreter runs an engine: the pool's own, else the engine's environment, else the one that runs us."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.errors import EngineUnavailable
from backends.process import import_path

TIMEOUT_S = 30.0
_LOOK = "import importlib.util as u, sys; print(' '.join(n for n in sys.argv[1:] if not u.find_spec(n)))"


def choose_python(
    engine: str,
    modules: Sequence[str],
    explicit: str | None,
    envs_dir: Path,
    current: str = sys.executable,
    others: Sequence[str] = (),
) -> str:
    """The first interpreter that finds all `modules`; `others` are environments that would do as well as the engine's own.

    Raises EngineUnavailable saying what each one lacks and how to mend it.
    """
    complaints = []
    for python in _candidates((engine, *others), explicit, envs_dir, current):
        problem = lacking(python, modules)
        if not problem:
            return python
        complaints.append(f"{python} {problem}")
    raise EngineUnavailable(
        f"no python here can run the {engine} engine: {'; '.join(complaints)}. "
        f"Install it with: forgegate install {engine}, or pip install 'forgegate[{engine}]', or name an interpreter with "
        "`python:` in the pool"
    )


def _candidates(names: Sequence[str], explicit: str | None, envs_dir: Path, current: str) -> list[str]:
    if explicit is not None:
        return [str(Path(explicit).expanduser())]
    return [*filter(None, (environment_python(envs_dir, name) for name in names)), current]


def environment_python(envs_dir: Path, name: str) -> str | None:
    """The interpreter of an installed environment; None where there is none.

    Not by the link that an upgrade moves: what runs keeps its own modules, and is seen to use them.
    """
    link = envs_dir / name
    python = (link.resolve() if link.is_symlink() else link) / "bin" / "python"
    return str(python) if python.exists() else None


def command_of(text: str) -> tuple[str, ...]:
    """`python:` of a pool in words: the path of an interpreter, or a command that ends in one (`numactl -N 0 /opt/vllm/bin/python`).

    Raises EngineUnavailable where a shell could not read it.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return (str(path),)
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise EngineUnavailable(f"python: {text!r} cannot be split into words: {exc}") from exc
    if not words:
        raise EngineUnavailable("python: it is empty; name an interpreter, or leave it out")
    return tuple(os.path.expanduser(word) for word in words)


def lacking(python: str, modules: Sequence[str]) -> str:
    """What this interpreter lacks, for example `has no llama_cpp`; empty if nothing."""
    try:
        found = subprocess.run(
            [python, "-P", "-c", _LOOK, *modules],
            env=child_env(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as exc:
        return f"cannot be run ({exc})"
    if found.returncode != 0:
        return f"cannot be run ({(found.stderr.strip().splitlines() or ['no output'])[-1]})"
    missing = found.stdout.split()
    return f"has no {', '.join(missing)}" if missing else ""


def child_env() -> dict[str, str]:
    """The environment for a child that imports our packages."""
    return {**os.environ, **import_env()}


def import_env() -> dict[str, str]:
    """What to add to a child's environment so that it finds our packages."""
    parts = [part for part in (import_path(), os.environ.get("PYTHONPATH", "")) if part]
    return {"PYTHONPATH": os.pathsep.join(parts)} if parts else {}
