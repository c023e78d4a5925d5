"""`forgegate bench compare`: two result files, better, worse, or no difference shown."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from benchmarks.commands.exits import EXIT_DONE, EXIT_NEGATIVE, EXIT_USAGE, refuse
from benchmarks.commands.run import console
from benchmarks.compare import CompareError, Comparison, Row, compared
from benchmarks.statistics.interval import Interval

_EXAMPLE = """example:
  forgegate bench run --model demo --repeats 3 --out before.json
  forgegate bench run --model demo --repeats 3 --out after.json
  forgegate bench compare before.json after.json

a difference is shown when the 95 % interval of the ratio AFTER / BEFORE does not hold 1. On a machine that others use too,
`bench versus` shows smaller ones: it measures in turns.

exit codes: 0 nothing is shown to be worse, 1 something is, 2 the files cannot be compared"""


def add(commands: Any) -> None:
    """Its parser."""
    text = "compare two results of `bench run`, load by load"
    compare = commands.add_parser("compare", help=text, description=text, epilog=_EXAMPLE)
    compare.add_argument("before", type=Path, metavar="BEFORE.json")
    compare.add_argument("after", type=Path, metavar="AFTER.json")
    compare.add_argument("--json", action="store_true", help="print JSON instead of the table")
    compare.set_defaults(function=_compare)


def _compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    try:
        found = compared(_read(options.before), _read(options.after), (str(options.before), str(options.after)))
    except CompareError as exc:
        return refuse(str(exc), EXIT_USAGE)
    if options.json:
        sys.stdout.write(orjson.dumps(_as_dict(found), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
    else:
        _print(found)
    return EXIT_NEGATIVE if found.is_worse else EXIT_DONE


def _read(path: Path) -> Any:
    """Raises CompareError."""
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as exc:
        raise CompareError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except orjson.JSONDecodeError as exc:
        raise CompareError(f"{path} is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise CompareError(f"{path} is no result of `forgegate bench run`")
    return found


def _print(found: Comparison) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("load", "figure", "before", "after", "after / before"):
        table.add_column(name, justify="left" if name in ("load", "figure") else "right")
    for row in found.rows:
        table.add_row(row.load, row.figure, _shown(row, row.a), _shown(row, row.b), row.sentence)
    console().print(table)
    for remark in found.remarks:
        console().print(f"note: {remark}", markup=False)


def _shown(row: Row, interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.estimate * 1e3:,.2f} ms" if "_s." in row.figure else f"{interval.estimate:,.1f}"


def _as_dict(found: Comparison) -> dict[str, Any]:
    rows = [
        {
            "load": row.load, "figure": row.figure, "before": row.a, "after": row.b,
            "ratio": row.difference and row.difference.ratio, "verdict": row.difference and row.difference.verdict,
        }
        for row in found.rows
    ]  # fmt: skip
    return {"rows": rows, "remarks": found.remarks}
