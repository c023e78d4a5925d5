"""Commands that run in the trainer's environment, or in any other that has what they need. They take this process' place: signals reach
them as they come, and nothing stands between them and its death."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from backends.pythons import child_env, environment_python, lacking
from gateway.exits import CommandError
from gateway.home import Home

DATA_MODULES = ("numpy", "pyarrow", "openpyxl", "rich", "finetune")
PLAN_MODULES = ("yaml", "rich", "pynvml", "finetune")
TRAIN_MODULES = (
    *PLAN_MODULES, "numpy", "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "safetensors", "matplotlib",
    "pyarrow", "openpyxl",
)  # fmt: skip
EXPORT_MODULES = ("numpy", "msgspec", "torch", "transformers", "peft", "safetensors", "rich", "finetune")
PARITY_MODULES = (*EXPORT_MODULES, "httpx", "pyarrow", "openpyxl")
EVALUATE_MODULES = ("numpy", "httpx", "yaml", "rich", "finetune")
GATE_MODULES = ("numpy", "httpx", "yaml", "rich", "finetune")


class TrainerMissing(CommandError):
    """No interpreter here has what the command needs."""


def data(argv: Sequence[str]) -> int:
    """`forgegate data`"""
    needed = (*DATA_MODULES, "httpx") if "vary" in argv[:1] else DATA_MODULES
    replace_by("finetune.data", needed, argv)


def train(argv: Sequence[str]) -> int:
    """`forgegate train`"""
    replace_by("finetune.train", _modules_of_train(argv), argv)


def export(argv: Sequence[str]) -> int:
    """`forgegate export`"""
    replace_by("finetune.export", EXPORT_MODULES, argv)


def parity(argv: Sequence[str]) -> int:
    """`forgegate parity`"""
    replace_by("finetune.parity", PARITY_MODULES, argv)


def evaluate(argv: Sequence[str]) -> int:
    """`forgegate evaluate`"""
    replace_by("finetune.evaluate", EVALUATE_MODULES, argv)


def gate(argv: Sequence[str]) -> int:
    """`forgegate gate`"""
    replace_by("finetune.gate", GATE_MODULES, argv)


def _modules_of_train(argv: Sequence[str]) -> Sequence[str]:
    """A plan and the table of keys need no torch; with the trainer's environment a plan counts tokens exactly."""
    return PLAN_MODULES if {"--plan", "--keys"} & {*argv} or not argv else TRAIN_MODULES


def replace_by(module: str, needed: Sequence[str], argv: Sequence[str]) -> NoReturn:
    """Become `python -m module`; its help needs no more than we have. Raises TrainerMissing."""
    command = _command(module, needed, argv)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(command[0], command, child_env())
    except OSError as exc:
        raise TrainerMissing(f"{command[0]} cannot be run ({exc.strerror or exc}): forgegate install trainer") from exc


def _command(module: str, needed: Sequence[str], argv: Sequence[str]) -> tuple[str, ...]:
    """Raises TrainerMissing."""
    python = sys.executable if {"-h", "--help"} & {*argv} else python_for(needed)
    return (python, "-P", "-m", module, *argv)


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
