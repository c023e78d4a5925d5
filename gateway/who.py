"""Who gives a command, as it is recorded."""

from __future__ import annotations

import argparse
import getpass
import socket


def add_who(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--who", default=user(), help=f"recorded with {what} (default: %(default)s)")


def user() -> str:
    """`ann@host`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in containers
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
