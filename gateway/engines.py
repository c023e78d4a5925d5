"""`forgegate engines list | logs | restart | drain | sleep | wake | tune`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from backends.admin_client import AdminClient
from gateway import tune
from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE, CommandError
from gateway.table import print_table

EXAMPLE = """examples:
  forgegate engines list
  forgegate engines logs demo-0 --lines 50
  forgegate engines restart demo-0
  forgegate engines drain demo-0           finish its requests, stop it, keep it stopped
  forgegate engines sleep demo-0           finish its requests, give its memory back (vLLM on a GPU)
  forgegate engines wake demo-0            wake or start it again
  forgegate engines tune demo-0            measure where its speculation pays
"""
POLL_S = 0.2

Engine = dict[str, Any]
IsOver = Callable[[Engine], bool]


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
            COMMANDS[args.action](client, args)
    return DONE


def _restart(client: AdminClient, args: argparse.Namespace) -> None:
    before = next((e["num_restarts"] for e in client.engines() if e["id"] == args.engine), 0)
    _follow(
        client, args, client.restart(args.engine), "restarting", lambda e: e["num_restarts"] > before and _is_ready(e)
    )


def _drain(client: AdminClient, args: argparse.Namespace) -> None:
    _follow(client, args, client.drain(args.engine), "drains", lambda engine: engine["state"] in ("stopped", "failed"))


def _sleep(client: AdminClient, args: argparse.Namespace) -> None:
    _follow(
        client, args, client.sleep(args.engine, args.level), "falls asleep", lambda engine: engine["state"] == "asleep"
    )


def _wake(client: AdminClient, args: argparse.Namespace) -> None:
    _follow(client, args, client.wake(args.engine), "wakes up", _is_ready)


COMMANDS = {"restart": _restart, "drain": _drain, "sleep": _sleep, "wake": _wake, "tune": tune.tune}


def _follow(client: AdminClient, args: argparse.Namespace, begun: Engine, meanwhile: str, is_over: IsOver) -> None:
    """Until it is over, unless nobody waits. Raises CommandError when the engine ends up elsewhere."""
    if begun["warning"]:
        print(f"warning: {begun['warning']}", file=sys.stderr)
    said, state = meanwhile, begun["state"]
    if not args.no_wait:
        engine = _wait(client, args.engine, is_over)
        state = engine["state"]
        said = f"ready ({engine['description']})" if state == "ready" else f"{state} ({engine['detail']})"
    print(json.dumps({"id": args.engine, "state": state}) if args.json else f"{args.engine}: {said}")


def _wait(client: AdminClient, engine_id: str, is_over: IsOver) -> Engine:
    while True:
        engine = next(engine for engine in client.engines() if engine["id"] == engine_id)
        if is_over(engine):
            return engine
        if engine["state"] in ("failed", "stopped"):
            raise CommandError(f"{engine_id}: {engine['detail'] or engine['state']}")
        time.sleep(POLL_S)


def _is_ready(engine: Engine) -> bool:
    return bool(engine["state"] == "ready")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate engines", description="The engines of a running gateway.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="list | logs | restart | drain | sleep | wake | tune"
    )
    add_arguments(actions.add_parser("list", help="state and load of every engine"))
    logs = actions.add_parser("logs", help="the newest lines of an engine's output")
    logs.add_argument("engine", help="for example demo-0")
    logs.add_argument("--lines", type=int, default=100, metavar="N", help="how many (default: 100, at most 500)")
    add_arguments(logs)
    _add_command(actions, "restart", "drain an engine, start it anew and wait until it is ready")
    _add_command(actions, "drain", "no new requests; once the running ones have ended, stop it and keep it stopped")
    sleep = _add_command(
        actions, "sleep", "no new requests; once the running ones have ended, let it give its memory back"
    )
    sleep.add_argument(
        "--level", type=int, default=1, choices=(1, 2),
        help="1: its weights go to RAM (default); 2: they are dropped, and read again when it wakes",
    )  # fmt: skip
    _add_command(actions, "wake", "wake an engine that sleeps, or start one that was drained or has failed")
    tune.add_parser(actions)
    return parser


def _add_command(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = actions.add_parser(name, help=text)
    command.add_argument("--no-wait", action="store_true", help="return as soon as it has begun")
    command.add_argument("engine", help="for example demo-0")
    add_arguments(command)
    return command


def _print_engines(engines: list[Engine]) -> None:
    heads = ("engine", "state", "pid", "uptime", "restarts", "running", "waiting", "kv", "what")
    print_table(heads, [_row(engine) for engine in engines])
    for engine in engines:
        if engine["advice"]:
            print(f"{engine['id']}: {engine['advice']}")


def _row(engine: Engine) -> tuple[str, ...]:
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
        (engine["detail"] or engine["description"]) + (", on demand" if engine["is_on_demand"] else ""),
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
