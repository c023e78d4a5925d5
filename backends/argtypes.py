"""Types of command line arguments, for argparse."""

from __future__ import annotations

import argparse

_MOST_DIGITS = 12


def positive(text: str) -> int:
    """A whole number from 1 on. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def port(text: str) -> int:
    """A TCP port. Raises ArgumentTypeError."""
    number = positive(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: the highest is 65535")
    return number
