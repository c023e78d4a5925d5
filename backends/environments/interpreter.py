"""Which Python an environment is made with, and whether it can be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.environments.errors import EnvironmentRefused

MINIMUM = (3, 11)
TIMEOUT_S = 60.0
_ASK = """
import importlib.util as u, json, sys
print(json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable, "version": list(sys.version_info[:3]),
    "kind": sys.implementation.name, "lacks": [name for name in ("venv", "ensurepip") if not u.find_spec(name)],
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: str
    """Of the base installation: an environment made of another one's python would die with that."""
    version: str


def examine(python: str) -> Interpreter:
    """Raises EnvironmentRefused with what is wrong and how to mend it."""
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise EnvironmentRefused(f"--python {python}: no such program")
    told = _ask(found)
    version = ".".join(map(str, told["version"]))
    if told["kind"] != "cpython" or tuple(told["version"]) < MINIMUM:
        raise EnvironmentRefused(
            f"{python} is {told['kind']} {version}; CPython {'.'.join(map(str, MINIMUM))} or newer is needed"
        )
    if told["lacks"]:
        package = f"python{told['version'][0]}.{told['version'][1]}-venv"
        raise EnvironmentRefused(
            f"{python} cannot make environments, it has no {' and no '.join(told['lacks'])}; "
            f"Debian, Ubuntu: apt-get install {package}, or name another interpreter with --python"
        )
    return Interpreter(str(Path(told["path"]).resolve()), version)


def _ask(python: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise EnvironmentRefused(f"{python} is no Python that can be run ({exc})") from exc
    return told


def has_nvidia() -> bool:
    """By the driver: libraries and compilers without one are no GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.startswith("GPU ")
