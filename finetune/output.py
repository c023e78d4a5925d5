"""Standard output, whose reader may leave at any time."""

from __future__ import annotations

import os
import sys


def unread() -> int:
    """The exit code of a command whose reader has left, as `| head` does. Python would complain once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
