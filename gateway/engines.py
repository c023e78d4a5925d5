"""`forgegate engines list | logs | restart`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from backends.admin_client import AdminClient
from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE, CommandError
from gateway.table import print_table

EXAMPLE = """examples:
  forgegate engines list
  forgegate engines logs demo-0 --lines 50
  forgegate engines restart demo-0
"""


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    with admin_client(args) as client:
        if args.action == "list":
            engines = client.engines()
            print(json.dumps(engines, indent=2)) if args.json else _print_engines(engines)
        elif args.action == "logs":
            lines = client.logs(args.engine, args.lines)
            print(json.dumps(lines, indent=2) if args.json else "\n".join(lines))
        else:
            _restart(client, args)
    return DONE


def _restart(client: AdminClient, args: argparse.Namespace) -> None:
    """Raises CommandError when the engine does not come back."""
    before = next((e["num_restarts"] for e in client.engines() if e["id"] == args.engine), 0)
    client.restart(args.engine)
    said = "restarting"
    if not args.no_wait:
        engine = _wait_restarted(client, args.engine, before)
        said = f"ready again ({engine['description']})"
    print(json.dumps({"id": args.engine}) if args.json else f"{args.engine}: {said}")


def _wait_restarted(client: AdminClient, engine_id: str, num_before: int) -> dict[str, Any]:
    while True:
        engine = next(engine for engine in client.engines() if engine["id"] == engine_id)
        if engine["state"] in ("failed", "stopped"):
            raise CommandError(f"{engine_id}: {engine['detail'] or engine['state']}")
        if engine["state"] == "ready" and engine["num_restarts"] > num_before:
            return engine
        time.sleep(0.2)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate engines", description="The engines of a running gateway.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | logs | restart")
    add_arguments(actions.add_parser("list", help="state and load of every engine"))
    logs = actions.add_parser("logs", help="the newest lines of an engine's output")
    logs.add_argument("engine", help="for example demo-0")
    logs.add_argument("--lines", type=int, default=100, metavar="N", help="how many (default: 100, at most 500)")
    add_arguments(logs)
    restart = actions.add_parser("restart", help="drain an engine, start it anew and wait until it is ready")
    restart.add_argument("--no-wait", action="store_true", help="return as soon as the restart has begun")
    restart.add_argument("engine", help="for example demo-0")
    add_arguments(restart)
    return parser


def _print_engines(engines: list[dict[str, Any]]) -> None:
    heads = ("engine", "state", "pid", "uptime", "restarts", "running", "waiting", "kv", "what")
    print_table(heads, [_row(engine) for engine in engines])


def _row(engine: dict[str, Any]) -> tuple[str, ...]:
    load = engine["load"] or {}
    uptime_s = engine["uptime_s"]
    return (
        engine["id"],
        engine["state"],
        str(engine["pid"] or "-"),
        "-" if uptime_s is None else _duration(uptime_s),
        str(engine["num_restarts"]),
        str(load.get("num_running", engine["num_requests"])),
        str(load.get("num_waiting", "-")),
        f"{load['kv_usage']:.0%}" if load else "-",
        engine["detail"] or engine["description"],
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
