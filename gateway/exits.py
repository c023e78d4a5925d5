"""Exit codes of every command, and the errors that end one with a single line for the user."""

from __future__ import annotations

DONE = 0
NEGATIVE = 1
"""The command did its work and the verdict is negative: doctor found errors, NO-GO, VOID."""
BAD_INPUT = 2
UNABLE = 3
"""The environment cannot do it: a port in use, a disk that is full, an engine that is not installed."""


class CommandError(Exception):
    """Ends the command; the message is all that the user sees."""

    exit_code = UNABLE


class UsageError(CommandError):
    """What the user gave is wrong: arguments, configuration, model."""

    exit_code = BAD_INPUT
