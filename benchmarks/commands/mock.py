"""`forgegate bench mock`: serve a fast programmable stub engine."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from benchmarks import arguments, eventloop
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USAGE, refuse
from benchmarks.mock_behaviour import Behaviour, BehaviourError

_EXAMPLE = """example:
  forgegate bench mock --port 9000 --ttft-ms 20 --itl-ms 20 --tokens 100 --disconnect-rate 0.1

one request can override every option: header `x-mock: ttft_ms=5, tokens=3` or body field `"mock": {"ttft_ms": 5}`.
Every chunk holds `mock.sent_s`, its send time by CLOCK_MONOTONIC. GET /mock/stats counts what the mock saw.
FORGEGATE_ENGINE_SECRET, if set, is demanded as bearer token."""


def add(commands: Any) -> None:
    """Its parser."""
    text = "serve a fast programmable stub engine"
    mock = commands.add_parser("mock", help=text, description=text, epilog=_EXAMPLE)
    mock.set_defaults(function=_mock)
    add = mock.add_argument
    add("--host", default="127.0.0.1", help="default %(default)s")
    add("--port", type=arguments.whole(0), default=9000, help="0 takes a free one (default 9000)")
    add("--models", type=arguments.names, default=("mock",), metavar="A,B", help="names it answers to (default mock)")
    add("--seed", type=arguments.whole(0), default=0, help="of errors, hangs, disconnects and jitter (default 0)")
    add("--slots", type=arguments.whole(0), default=0, help="requests that run at once, 0 for any number (default 0)")
    add("--max-waiting", type=arguments.whole(0), help="requests that wait for a slot before 429 (default any number)")
    for spec in fields(Behaviour):
        kind = arguments.whole(-1) if spec.type is int else arguments.number(0)
        option = f"--{spec.name.replace('_', '-')}"
        add(option, type=kind, default=spec.default, metavar="X", help=f"default {spec.default:g}")


def _mock(options: argparse.Namespace, words: Sequence[str]) -> int:
    from benchmarks.mock_server import MockEngine, secret_from_environment, serve

    try:
        behaviour = Behaviour(**{spec.name: getattr(options, spec.name) for spec in fields(Behaviour)})
    except BehaviourError as exc:
        return refuse(str(exc), EXIT_USAGE)
    engine = MockEngine(
        behaviour,
        models=options.models,
        seed=options.seed,
        num_slots=options.slots,
        max_waiting=options.max_waiting,
        secret=secret_from_environment(),
    )
    try:
        eventloop.run(serve(engine, options.host, options.port, lambda line: print(line, flush=True)))
    except OSError as exc:
        return refuse(f"cannot listen on {options.host}:{options.port}: {exc.strerror or exc}", EXIT_ENVIRONMENT)
    return EXIT_DONE
