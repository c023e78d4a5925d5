"""Numbers on the command line: `nan` and `inf` are none, and no JSON holds them."""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """A type of argparse's."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return number
