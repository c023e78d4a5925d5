"""A result where it is wanted: in the file that is named, on standard output as JSON or as a table."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import report


def deliver(options: argparse.Namespace, result: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    """`options` has `out` and `json`; `show` prints the table."""
    if options.out:
        report.write(options.out, report.dump(result))
    if options.json:
        sys.stdout.write(report.dump(result).decode())
    else:
        show(result)
