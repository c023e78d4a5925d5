"""`forgegate bench versus`: two endpoints, the same requests in turns, the ratio with its interval."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import arguments, eventloop, report
from benchmarks.campaign import MeasuredRun, Plan, WarmUpError
from benchmarks.client import Client, Target
from benchmarks.commands import traffic_options
from benchmarks.commands.exits import EXIT_DONE, EXIT_NEGATIVE
from benchmarks.commands.load_options import add_load_options, levels_of, loads_of
from benchmarks.commands.request_sources import refuse_unheard, remember_defaults, tell_left_out
from benchmarks.commands.run import console
from benchmarks.commands.workload_options import add_workload_options, workload_of
from benchmarks.probe import UnusableError, find_model
from benchmarks.statistics.difference import MIN_PAIRS
from benchmarks.versus import A, B, Match, Side, run_versus

_EXAMPLE = """example:
  forgegate bench versus http://127.0.0.1:8080 http://127.0.0.1:9000 --model demo --concurrency 1,8 --repeats 7

both get the same requests, in turns, and each pair of runs is one observation of the ratio B / A: what else the machine does
moves both. --model-b names the model where B calls it otherwise.

exit codes: 0 done, 1 measured but not valid, 2 bad usage, 3 a server cannot be reached"""


def add(commands: Any) -> None:
    """Its parser."""
    text = "compare two endpoints in turns, with the same requests"
    versus = commands.add_parser("versus", help=text, description=text, epilog=_EXAMPLE)
    add = versus.add_argument
    add("url_a", metavar="URL_A")
    add("url_b", metavar="URL_B")
    add("--model", help="default: A's only one")
    add("--model-b", help="what B calls it (default: the same)")
    add("--api-key", help="bearer token of both (default: $FORGEGATE_API_KEY); never written to results")
    add("--api-key-b", help="B's, where it has another")
    add_load_options(versus)
    add(
        "--repeats",
        type=arguments.whole(MIN_PAIRS),
        default=5,
        metavar="R",
        help="pairs of runs at each load (default 5)",
    )
    add("--warmup", type=arguments.whole(0), metavar="N", help="requests to each before the clock starts")
    add("--timeout", type=arguments.number(0.01), default=600.0, metavar="S", help="for a whole request (default 600)")
    add("--seed", type=arguments.whole(0), default=0, help="of the prompts, lengths and arrivals (default 0)")
    add("--out", type=Path, metavar="FILE.json", help="write the result here too")
    add("--json", action="store_true", help="print JSON instead of the table")
    add_workload_options(versus)
    traffic_options.add_traffic_options(versus)
    versus.set_defaults(function=_versus, ignore_eos=None)
    remember_defaults(versus)


def _versus(options: argparse.Namespace, words: Sequence[str]) -> int:
    key = options.api_key or os.environ.get("FORGEGATE_API_KEY")
    targets = (Target.from_url(options.url_a, key), Target.from_url(options.url_b, options.api_key_b or key))
    plan = _plan(options)
    tell_left_out(plan.loads)
    if options.out:
        report.require_writable(options.out)
    matches, plan = eventloop.run(_measure(options, targets, plan))
    result = _document(["forgegate", "bench", *words], targets, plan, matches)
    if options.out:
        report.write(options.out, report.dump(result))
    if options.json:
        sys.stdout.write(report.dump(result).decode())
    else:
        _print(matches)
    return EXIT_DONE if result["is_valid"] else EXIT_NEGATIVE


async def _measure(options: argparse.Namespace, targets: Sequence[Target], plan: Plan) -> tuple[list[Match], Plan]:
    clients = [Client(target, timeout_s=options.timeout, max_connections=options.max_connections) for target in targets]
    try:
        model_a = await find_model(clients[0], options.model)
        model_b = await find_model(clients[1], options.model_b or model_a)
        sides = [
            Side(name, client, replace(plan, workload=replace(plan.workload, model=model)))
            for name, client, model in zip((A, B), clients, (model_a, model_b), strict=True)
        ]
        num_runs = 2 * len(plan.all_loads) * plan.repeats
        matches = await run_versus(sides[0], sides[1], lambda name, run: _tell(name, run, num_runs))
        return matches, sides[0].plan
    except WarmUpError as exc:
        raise UnusableError(str(exc), is_environment=True) from exc
    finally:
        for client in clients:
            client.close()
        await asyncio.sleep(0)


def _plan(options: argparse.Namespace) -> Plan:
    """Raises WorkloadError."""
    refuse_unheard(options)
    return Plan(
        workload_of(options, "", **traffic_options.traffic_fields(options)), levels_of(options), options.requests, options.repeats,
        options.warmup, options.seed, loads=loads_of(options), num_processes=options.processes,
    )  # fmt: skip


def _tell(name: str, run: MeasuredRun, num_runs: int) -> None:
    print(f"{name} {report.progress_line(run, num_runs)}", file=sys.stderr)


def _document(
    command: Sequence[str], targets: Sequence[Target], plan: Plan, matches: Sequence[Match]
) -> dict[str, Any]:
    faults = [f"{match.load.label}, {fault}" for match in matches for fault in match.faults]
    return report.document(
        "versus", command, urls=[target.url for target in targets], plan=report.plan_dict(plan), is_valid=not faults, faults=faults,
        loads=[
            {
                "load": match.load.as_dict(),
                "figures": {
                    figure: {"ratio": asdict(found.ratio), "verdict": found.verdict.value} for figure, found in match.differences.items()
                },
                "pairs": [{name: asdict(run.summary) for name, run in zip((A, B), pair, strict=True)} for pair in match.pairs],
            }
            for match in matches
        ],
    )  # fmt: skip


def _print(matches: Sequence[Match]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("load", "figure", "B / A"):
        table.add_column(name)
    for match in matches:
        for figure, difference in match.differences.items():
            table.add_row(match.load.label, figure, difference.sentence())
    console().print(table)
    for match in matches:
        for fault in match.faults:
            console().print(f"INVALID {match.load.label}, {fault}", markup=False)
