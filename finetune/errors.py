"""Errors of training, export and parity, each with a message fit for the user.

TrainError                   exit code of a command that ends with it
|- RecipeUnusable            2   what the user wrote or gave cannot be used; one sentence a line where there are several
|- OutOfMemory               3   it does not fit; the message has memory by part and the next step
|- TrainingStopped           1   a guard ended the run
`- LacksPackage              3   this environment has not what the work needs
"""

from __future__ import annotations

from collections.abc import Sequence


class TrainError(Exception):
    """The tree's root; `exit_code` is what a command returns that ends with it."""

    exit_code = 3


class RecipeUnusable(TrainError):
    """What the user wrote or gave cannot be used; `problems` has one sentence for each fault, the message one a line."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class OutOfMemory(TrainError):
    """The device or the machine has less memory than the run takes."""


class TrainingStopped(TrainError):
    """A guard ended the run; the message names the cause, the rows and the remedy."""

    exit_code = 1


class LacksPackage(TrainError):
    """A package is missing that the work needs; the message says how it is installed."""
