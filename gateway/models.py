"""`forgegate models list`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE
from gateway.table import print_table

EXAMPLE = """example:
  forgegate models list
"""


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    with admin_client(args) as client:
        models = client.models()
    if args.json:
        print(json.dumps(models, indent=2))
        return DONE
    heads = ("model", "served as", "context", "ready", "can")
    rows = [
        (
            model["name"],
            model["resolved"],
            str(model["context_length"] or "-"),
            f"{model['num_ready']}/{len(model['engines'])}",
            " ".join(model["capabilities"]),
        )
        for model in models
    ]
    print_table(heads, rows)
    return DONE


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate models", description="The models of a running gateway.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar="list")
    add_arguments(actions.add_parser("list", help="what clients may ask for"))
    return parser
