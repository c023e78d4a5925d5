"""`forgegate engines tune`: measure where speculation pays on one engine, and let it start with the result."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from backends.admin_client import AdminClient
from gateway.connection import add_arguments
from gateway.exits import CommandError, UsageError
from gateway.table import print_table

HELP = "measure where an engine's speculation pays, and set its depth per batch size"
DESCRIPTION = """Measure an engine with speculation off and at several depths, at several numbers of streams. It takes no traffic
meanwhile: one start for each setting, and a minute or so for each measurement. The result is remembered for this model, draft,
vLLM, options and machine, and the engine starts again with it. Broken off (Ctrl-C), the engine starts again as it was."""


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("tune", help=HELP, description=DESCRIPTION)
    parser.add_argument("engine", help="for example demo-0")
    parser.add_argument(
        "--streams", type=_numbers, default=[], metavar="N,N,...",
        help="numbers of streams (default: 1,2,4,8)",
    )  # fmt: skip
    parser.add_argument(
        "--depths", type=_numbers, default=[], metavar="N,N,...",
        help="draft tokens of one step (default: as configured, half of it, and 1)",
    )  # fmt: skip
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="that a request generates (default: 128)")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE",
        help="texts to continue, one a line: best those of your clients (default: those that come with forgegate)",
    )  # fmt: skip
    parser.add_argument("--passes", type=int, default=1, metavar="N", help="measure all of it N times; the best counts")
    parser.add_argument("--yes", action="store_true", help="also if the model is not served meanwhile")
    add_arguments(parser)


def tune(client: AdminClient, args: argparse.Namespace) -> None:
    """Progress goes to standard error, the result to standard output. Raises CommandError when the engine does not come back."""
    order = {
        "streams": args.streams, "depths": args.depths, "prompts": _prompts(args.prompts), "num_tokens": args.tokens,
        "passes": args.passes, "force": args.yes,
    }  # fmt: skip
    try:
        result = client.tune(args.engine, order, on_event=_Progress())
    except KeyboardInterrupt:
        print(f"broken off: {args.engine} starts again as it was", file=sys.stderr)
        raise
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    if result["state"] != "ready":
        raise CommandError(f"{args.engine} did not start again: forgegate engines logs {args.engine}")


class _Progress:
    """A line for each thing that is new."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, event: dict[str, Any]) -> None:
        text = str(event.get("text", ""))
        if text != self._told:
            print(text, file=sys.stderr, flush=True)
        self._told = text


def _print(result: dict[str, Any]) -> None:
    rows = result["streams"]
    depths = [cell["depth"] for cell in rows[0]["on"]]
    has_varied = rows[0]["by_streams"] is not None
    heads = ["streams", "off tok/s", *(f"depth {depth}" for depth in depths)]
    heads += (["by streams"] if has_varied else []) + [f"tokens/step at {depths[-1]}", "needed", "chosen"]
    print_table(heads, [_row(row, has_varied) for row in rows])
    verb = "has now" if result["is_taken"] else "would have"
    print(f"\n{result['id']} {verb} speculation: {result['chosen']['words']} (before: {result['before']})")
    for note in result["notes"]:
        print(f"note: {note}")


def _row(row: dict[str, Any], has_varied: bool) -> list[str]:
    off, deepest = row["off"]["tokens_per_s"], row["on"][-1]
    rates = [cell["tokens_per_s"] for cell in row["on"]]
    rates += [row["by_streams"]["tokens_per_s"]] if has_varied else []
    return [
        str(row["streams"]),
        f"{off:,.0f}",
        *(f"{rate:,.0f} ({rate / off:.2f}x)" for rate in rates),
        f"{deepest['tokens_per_step']:.2f}",
        f"{deepest['needed']:.2f}",
        f"depth {row['chosen']['depth']}" if row["chosen"]["depth"] else "off",
    ]


def _prompts(path: Path | None) -> list[str]:
    """Raises UsageError."""
    if path is None:
        return []
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"--prompts {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    if not prompts:
        raise UsageError(f"--prompts {path}: it holds no text")
    return prompts


def _numbers(text: str) -> list[int]:
    """`1,2,4`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"numbers separated by commas, for example 1,2,4, not {text!r}") from exc
