"""`forgegate bench run`: measure throughput and latency."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks import arguments, energy, eventloop, report, table
from benchmarks.campaign import Plan, WarmUpError
from benchmarks.ceiling import CeilingError, measure_ceiling
from benchmarks.client import Client, Target
from benchmarks.commands import outputs, traffic_options
from benchmarks.commands.exits import EXIT_DONE, EXIT_NEGATIVE
from benchmarks.commands.load_options import add_load_options, add_repeats_option, levels_of, loads_of, repeats_of
from benchmarks.commands.measure import Measured, measured
from benchmarks.commands.profile_options import Profile, profile_of
from benchmarks.commands.request_sources import add_saved_options, refuse_unheard, remember_defaults, tell_left_out
from benchmarks.commands.slo_options import add_slo_options, slo_of
from benchmarks.commands.workload_options import add_workload_options, workload_of
from benchmarks.probe import UnusableError, find_model
from benchmarks.record import FailureKind
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.saved import save_requests
from benchmarks.validity import Ceiling
from benchmarks.workload import Workload

_EXAMPLE = """examples:
  forgegate bench run --url http://127.0.0.1:8080 --model demo
  forgegate bench run --model demo --slo "ttft_p99<500ms,tpot_p99<30ms" --out sweep.html
  forgegate bench run --model demo --concurrency 1,8,32 --output-tokens 128
  forgegate bench run --model demo --rate 2,4,8 --duration 60 --input-tokens lognormal:550,0.8 --shared-prefix 8x512
  forgegate bench run --model demo --trace conversations.jsonl --trace-format mooncake --duration 300

without a load it is a sweep: one request at a time, full throughput, then rates in between, three times each: some ten minutes and the
time of the first two. `--repeats 1` is a quick look: a third of the time, and nothing of it is settled. A closed loop waits for answers,
an open loop (--rate, --ramp, --trace) does not: its latencies, counted from when a request was due, are those that users of a service see.

exit codes: 0 done, 1 measured but not valid (requests failed, short answers, client too slow), or the --slo is shown to hold at
no load, 2 bad usage, 3 the server cannot be reached"""


def add(commands: Any) -> None:
    """Its parser."""
    text = "measure throughput and latency by load, and the load at which a promise still holds"
    run = commands.add_parser("run", help=text, description=text, epilog=_EXAMPLE)
    add = run.add_argument
    add("--url", default="http://127.0.0.1:8080", help="server's root (default %(default)s)")
    add("--model", help="default: the server's only one")
    add("--api-key", help="bearer token (default: $FORGEGATE_API_KEY); never written to results")
    add_load_options(run, Profile.SWEEP)
    add_saved_options(run)
    add_slo_options(run)
    add_repeats_option(run)
    add(
        "--warmup",
        type=arguments.whole(0),
        metavar="N",
        help="requests before the clock starts (default: highest level)",
    )
    add("--timeout", type=arguments.number(0.01), default=600.0, metavar="S", help="for a whole request (default 600)")
    add("--keep-alive", choices=("on", "off"), default="on", help="off: a fresh connection for each request")
    add("--seed", type=arguments.whole(0), default=0, help="of the prompts, lengths and arrivals (default 0)")
    add(
        "--out", type=Path, action="append", default=[], metavar="FILE",
        help="write the result here too, as its name says: .json, .csv, .md, .html, .vllm.json (as `vllm bench serve` does), .parquet "
        "(every request); more than once for several",
    )  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of the table")
    add(
        "--ceiling", action=argparse.BooleanOptionalAction, default=True,
        help="first measure what this client reaches against the mock, some 5 s; a run above 70 %% of it is void (default on)",
    )  # fmt: skip
    add(
        "--metrics-url", metavar="URL",
        help="root of the engine whose /metrics tells how many requests it holds (default: --url): Little's law is checked",
    )  # fmt: skip
    add("--synthetic-weights", action="store_true", help="the weights are random: what the server says is not checked")
    add_workload_options(run)
    traffic_options.add_traffic_options(run)
    run.set_defaults(function=_run, ignore_eos=None)
    remember_defaults(run)


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    target = Target.from_url(options.url, _key(options))
    _plan(options, "")  # bad input is refused before the server is asked
    for path in options.out:
        outputs.require_possible(path)
    with energy.opened(options.energy_gpus, target.host) as meter:
        found = eventloop.run(_measure(options, target, meter))
    result = _document(options, words, target, found)
    data = report.dump(result)
    levels = [*found.levels, *(each.level for each in found.beyond)]
    for path in options.out:
        outputs.write(path, data, levels)
    if options.json:
        sys.stdout.write(data.decode())
    else:
        table.print_run(orjson.loads(data), console())
    return EXIT_DONE if result["is_valid"] and result.get("is_slo_met") is not False else EXIT_NEGATIVE


def _document(options: argparse.Namespace, words: Sequence[str], target: Target, found: Measured) -> dict[str, Any]:
    return report.run_document(
        ["forgegate", "bench", *words], target.url, found.plan, found.levels, profile=profile_of(options).value,
        beyond=found.beyond, stop=found.stop, capacity=found.capacity,
    )  # fmt: skip


def console() -> Console:
    """Standard output; wide enough for the table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


async def _measure(options: argparse.Namespace, target: Target, meter: energy.Meter | None) -> Measured:
    client = Client(
        target,
        keep_alive=options.keep_alive == "on",
        timeout_s=options.timeout,
        max_connections=options.max_connections,
    )
    try:
        plan = _plan(options, await find_model(client, _model(options)))
        if options.save_requests:
            _save(options.save_requests, plan)
        plan = replace(plan, ceiling=await _ceiling(options), meter=meter)
        tell_left_out(plan.loads)
        return await measured(options, client, plan)
    except WarmUpError as exc:
        raise UnusableError(_with_hint(exc), is_environment=not _is_refusal(exc)) from exc
    finally:
        client.close()
        await asyncio.sleep(0)


def _plan(options: argparse.Namespace, model: str) -> Plan:
    """Raises WorkloadError."""
    refuse_unheard(options)
    workload = _workload(options, model)
    return Plan(
        workload,
        levels_of(options),
        options.requests,
        repeats_of(options),
        options.warmup,
        options.seed,
        loads=loads_of(options),
        num_processes=options.processes,
        gauge=Target.from_url(options.metrics_url or options.url, _key(options)),
        is_synthetic=options.synthetic_weights,
        slo=slo_of(options, workload),
        num_gpus=options.gpus,
    )


async def _ceiling(options: argparse.Namespace) -> Ceiling | None:
    if not options.ceiling:
        return None
    sys.stderr.write("measuring what this client reaches against the mock (--no-ceiling leaves it out)\n")
    try:
        return await measure_ceiling(options.processes)
    except CeilingError as exc:
        raise UnusableError(f"{exc}: --no-ceiling leaves this out", is_environment=True) from exc


def _key(options: argparse.Namespace) -> str | None:
    return options.api_key or os.environ.get("FORGEGATE_API_KEY")


def _workload(options: argparse.Namespace, model: str) -> Workload:
    return workload_of(options, model, **traffic_options.traffic_fields(options))


def _model(options: argparse.Namespace) -> str | None:
    """The one to look for; a saved list names its own."""
    if not options.requests_from:
        return str(options.model) if options.model else None
    (load,) = loads_of(options)
    first = load.requests(Workload(""), "")[0]
    model = orjson.loads(first.body).get("model")
    return str(model) if model else None


def _save(path: Path, plan: Plan) -> None:
    (load,) = plan.all_loads
    try:
        save_requests(path, load.requests(plan.workload, plan.seed_of(load.key, 0)))
    except OSError as exc:
        raise WorkloadError(f"cannot write {path}: {exc.strerror or exc}") from exc


def _is_refusal(error: WarmUpError) -> bool:
    return error.failure.kind is FailureKind.HTTP_STATUS and error.failure.detail.startswith("4")


def _with_hint(error: WarmUpError) -> str:
    is_eos = "ignore_eos" in error.failure.detail
    return str(error) + (" (--no-ignore-eos leaves that field out)" if is_eos else "")
