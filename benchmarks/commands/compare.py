"""`forgegate bench compare`: two result files, of this or of another load generator: better, worse, or no difference shown."""

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
from benchmarks.foreign import comparing, ours, reading
from benchmarks.foreign.measured import ForeignError
from benchmarks.statistics.interval import Interval

_EXAMPLE = """example:
  forgegate bench run --model demo --concurrency 1,8 --repeats 3 --out before.json
  forgegate bench run --model demo --concurrency 1,8 --repeats 3 --out after.json
  forgegate bench compare before.json after.json
  forgegate bench compare before.json vllm.json      # of `vllm bench serve --save-result`, or GuideLLM's benchmarks.json

a difference is shown when the 95 % interval of the ratio AFTER / BEFORE does not hold 1. On a machine that others use too,
`bench versus` shows smaller ones: it measures in turns. Of other load generators' files whole runs are compared, figures of the same
definition only; what a tool counts otherwise is said below the table. `vllm bench serve --save-detailed` gives it intervals.

exit codes: 0 nothing is shown to be worse, 1 something is, 2 the files cannot be compared"""


def add(commands: Any) -> None:
    """Its parser."""
    text = "compare two results of `bench run`, `vllm bench serve` or GuideLLM, load by load"
    compare = commands.add_parser("compare", help=text, description=text, epilog=_EXAMPLE)
    compare.add_argument("before", type=Path, metavar="BEFORE.json")
    compare.add_argument("after", type=Path, metavar="AFTER.json")
    compare.add_argument("--json", action="store_true", help="print JSON instead of the table")
    compare.set_defaults(function=_compare)


def _compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    try:
        found = _compared(options.before, options.after)
    except (CompareError, ForeignError) as exc:
        return refuse(str(exc), EXIT_USAGE)
    if options.json:
        sys.stdout.write(orjson.dumps(_as_dict(found), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
    else:
        _print(found)
    return EXIT_NEGATIVE if found.is_worse else EXIT_DONE


def _compared(before: Path, after: Path) -> Comparison:
    """Raises CompareError, ForeignError."""
    a, b = reading.documents_of(before), reading.documents_of(after)
    if len(a) == len(b) == 1 and ours.is_ours(a[0]) and ours.is_ours(b[0]):
        return compared(a[0], b[0], (str(before), str(after)))
    return comparing.compared(reading.measured_of(before, a), reading.measured_of(after, b), (str(before), str(after)))


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
