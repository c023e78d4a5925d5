"""Commands that run as a child in the trainer's environment, or in any other that has what they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from backends.pythons import child_env, environment_python, lacking
from gateway.exits import CommandError
from gateway.home import Home

DATA_MODULES = ("numpy", "pyarrow", "openpyxl", "rich", "finetune")


class TrainerMissing(CommandError):
    """No interpreter here has what the command needs."""


def data(argv: Sequence[str]) -> int:
    """`forgegate data`"""
    return run("finetune.data", DATA_MODULES, argv)


def run(module: str, needed: Sequence[str], argv: Sequence[str]) -> int:
    """The exit code of `python -m module`, which talks to the user itself; its help needs no more than we have. Raises TrainerMissing."""
    python = sys.executable if {"-h", "--help"} & {*argv} else python_for(needed)
    command = (python, "-P", "-m", module, *argv)
    child = subprocess.Popen(command, env=child_env())
    while True:
        try:
            code = child.wait()
            break
        except KeyboardInterrupt:
            continue  # the terminal has sent it to the child too: it ends by itself and says how
    return code if code >= 0 else 128 - code


def python_for(needed: Sequence[str]) -> str:
    """The trainer's interpreter, else the one that runs us. Raises TrainerMissing."""
    complaints = []
    for python in filter(None, (environment_python(Home.from_env().envs, "trainer"), sys.executable)):
        problem = lacking(python, needed)
        if not problem:
            return python
        complaints.append(f"{python} {problem}")
    raise TrainerMissing(
        f"this needs the trainer's environment: {'; '.join(complaints)}. Install it with: forgegate install trainer"
    )
