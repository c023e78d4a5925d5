"""`forgegate bench`: the client that measures any endpoint, and beside its commands those of runs that a gateway makes itself.

The client is started by its name alone: a black box, with whom the gateway shares no code. Of ours it knows the names, for its help.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

CLIENT = "benchmarks.cli"
RUNS = {
    "start": "let the running gateway measure one of its models",
    "list": "the gateway's runs: how far each is, what came of it, where the reports are",
    "show": "one of the gateway's runs, load by load; fetch its report",
    "stop": "end one of the gateway's runs",
}


def main(argv: Sequence[str]) -> int:
    if argv and argv[0] in RUNS:
        from gateway import benchruns  # only these need an HTTP client of ours

        return benchruns.main(argv)
    return int(import_module(CLIENT).main(argv, RUNS))
