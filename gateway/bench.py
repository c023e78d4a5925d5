"""`forgegate bench`: the client that measures any endpoint, and beside its commands those of runs that a gateway makes itself.

The client is started by its name alone: a black box, with whom the gateway shares no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module

CLIENT = "benchmarks.cli"
RUNS = {
    "start": "let the running gateway measure one of its models",
    "list": "the gateway's runs: how far each is, what came of it, where the reports are",
    "show": "one of the gateway's runs, load by load; fetch its report",
    "stop": "end one of the gateway's runs",
}


def main(argv: Sequence[str]) -> int:
    others = {name: (text, partial(_of_gateway, name)) for name, text in RUNS.items()}
    return int(import_module(CLIENT).main(argv, others))


def _of_gateway(name: str, argv: Sequence[str]) -> int:
    from gateway import benchruns  # only these need an HTTP client of ours

    return benchruns.main((name, *argv))
