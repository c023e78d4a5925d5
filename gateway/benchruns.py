"""`forgegate bench start | list | show | stop`: runs by the admin API, which measures the gateway's own models."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backends.admin_client import AdminClient
from backends.errors import AdminError
from gateway.bench import RUNS
from gateway.benchview import headline, row, show_run
from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE, NEGATIVE, CommandError, UsageError
from gateway.finite import finite
from gateway.home import Home
from gateway.table import print_table
from gateway.who import add_who

EXAMPLES = {
    "start": """One run at a time, and not beside much traffic of users unless it is forced. The options are those of `forgegate bench run`.
Stopped (Ctrl-C), the run goes on without you.

examples:
  forgegate bench start --model demo                              1, 8 and 32 streams, three times each
  forgegate bench start --model demo --concurrency 1,8 --output-tokens 64
  forgegate bench start --model demo --rate 2,4 --duration 60 --slo interactive --no-wait

exit codes: 0 done, 1 void, or the --slo is shown to hold at no load, 2 refused, 3 it came to nothing
""",
    "list": """examples:
  forgegate bench list
  forgegate bench list --json
""",
    "show": """examples:
  forgegate bench show                                            the newest
  forgegate bench show 20261130-174512-3fa2 --out report.html
""",
    "stop": """examples:
  forgegate bench stop 20261130-174512-3fa2
""",
}
DEFAULT_REPEATS = 3
"""Fewer do not show how repeats differ, and nothing is settled by them."""
POLL_S = 1.0
SILENCE_S = 60.0
"""A gateway that is measured may be too busy to say how far it is: this long it is asked again."""
REPORT = "report.html"
FORMS = {".html": "html", ".json": "json"}
_ORDERED = (
    "model", "concurrency", "rate", "duration_s", "requests", "repeats", "seed", "endpoint", "input_tokens", "output_tokens", "slo",
    "limit_s", "who",
)  # fmt: skip
"""Fields of the order that are options of the same name; None is left to the gateway."""

Run = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    form = _form_of(args.out) if args.action == "show" and args.out else ""
    with admin_client(args) as client:
        if args.action == "start":
            return _start(client, args)
        if args.action == "list":
            return _list(client, args)
        if args.action == "show":
            return _show(client, args, form)
        return _stop(client, args)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("forgegate bench")
    actions = parser.add_subparsers(dest="action", required=True)
    _add_order(_action(actions, "start"))
    _action(actions, "list")
    show = _action(actions, "show")
    show.add_argument("run", metavar="ID", nargs="?", default="", help="of a run (default: the newest)")
    show.add_argument("--out", type=Path, metavar="FILE", help="fetch its report: page (.html) or all figures (.json)")
    _action(actions, "stop").add_argument("run", metavar="ID", help="of a run")
    for name in RUNS:
        add_arguments(actions.choices[name])
    return parser


def _action(actions: Any, name: str) -> argparse.ArgumentParser:
    words = RUNS[name]
    made: argparse.ArgumentParser = actions.add_parser(
        name, help=words, description=f"{words[0].upper()}{words[1:]}.", epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    return made


def _add_order(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    lengths = "N|A-B|lognormal:MEAN,SIGMA"
    add("--model", required=True, metavar="NAME", help="model, alias or version, as clients ask for it")
    add("--concurrency", type=_numbers(int), metavar="C,C", help="closed loop: streams, each a load (default 1,8,32)")
    add("--rate", type=_numbers(finite), metavar="R,R", help="open loop: requests per second, each a load of its own")
    add("--duration", type=finite, dest="duration_s", metavar="S", help="of an open loop: for so long requests come")
    add("--requests", type=int, metavar="N", help="per load and repeat (default 4 per stream, at least 8)")
    add("--repeats", type=int, default=DEFAULT_REPEATS, metavar="R", help="of all loads, in turns (default 3)")
    add("--seed", type=int, metavar="N", help="of the prompts, lengths and arrivals (default 0)")
    add("--endpoint", choices=("chat", "completions", "embeddings"), help="API (default chat)")
    add("--input-tokens", metavar=lengths, help="prompt length (default 32)")
    add("--output-tokens", metavar=lengths, help="answer length (default 128)")
    add("--slo", metavar="SLO", help="what users are promised: ttft_p99<500ms,tpot_p99<30ms, or a preset: interactive")
    add("--no-ceiling", action="store_true", help="do not measure first what the client reaches here, some 5 s")
    limit_help = "end it then, without a result (default 1800 for each repeat, at most 7200)"
    add("--limit", type=finite, dest="limit_s", metavar="S", help=limit_help)
    add("--force", action="store_true", help="also while users take more of the engines than a run should be beside")
    add("--no-wait", action="store_true", help="return as soon as it has begun")
    add_who(parser, "the run")


# Start ----------------------------------------------------------------------------------------------------------------


def _start(client: AdminClient, args: argparse.Namespace) -> int:
    run = client.start_benchmark(_order(args))
    print(f"benchmark {run['id']} of {run['model']} has begun", file=sys.stderr)
    if args.no_wait:
        print(json.dumps(run, indent=2) if args.json else run["id"])
        return DONE
    try:
        run = _followed(client, run)
    except BaseException:  # whatever ends this does not end the run
        print(f"it goes on without you: forgegate bench show {run['id']}, or stop {run['id']}", file=sys.stderr)
        raise
    return _end(run, args)


def _order(args: argparse.Namespace) -> dict[str, Any]:
    order = {name: value for name in _ORDERED if (value := getattr(args, name)) is not None}
    return order | {"ceiling": not args.no_ceiling, "force": args.force}


def _followed(client: AdminClient, run: Run) -> Run:
    """Until it has ended; a line for each thing that is new."""
    told = ""
    while run["state"] == "running":
        if (line := headline(run)) != told:
            print(line, file=sys.stderr, flush=True)
        told = line
        run = _polled(client, run["id"])
    return run


def _polled(client: AdminClient, run_id: str) -> Run:
    """How far it is some time from now. Raises AdminError, of a gateway that cannot be reached only after SILENCE_S."""
    until_s = time.monotonic() + SILENCE_S
    while True:
        time.sleep(POLL_S)
        try:
            return client.benchmark(run_id)
        except AdminError as exc:
            if exc.status or time.monotonic() >= until_s:
                raise


def _end(run: Run, args: argparse.Namespace) -> int:
    """What it came to. Raises CommandError where that is nothing."""
    if run["state"] != "done":
        raise CommandError(f"benchmark {run['id']} has no result: {headline(run)}")
    _print(run, args)
    return DONE if run["is_valid"] and run["is_slo_met"] is not False else NEGATIVE


# What there is --------------------------------------------------------------------------------------------------------


def _list(client: AdminClient, args: argparse.Namespace) -> int:
    runs = client.benchmarks()
    if args.json:
        print(json.dumps(runs, indent=2))
    elif not runs:
        print("nothing was measured yet: forgegate bench start --model NAME")
    else:
        print_table(("benchmark", "model", "began", "by", "what"), [row(run) for run in runs])
        if any(run["state"] == "done" for run in runs):
            print(f"\nreports: {_report_of('ID', args)}, or `forgegate bench show ID --out FILE.html`")
    return DONE


def _show(client: AdminClient, args: argparse.Namespace, form: str) -> int:
    run = client.benchmark(args.run or _newest(client))
    if form:
        content = client.benchmark_report(run["id"], form)
        try:
            args.out.write_bytes(content)
        except OSError as exc:
            raise UsageError(f"--out {args.out}: {exc.strerror or exc}") from exc
    _print(run, args)
    return DONE


def _newest(client: AdminClient) -> str:
    """Raises UsageError."""
    runs = client.benchmarks()
    if not runs:
        raise UsageError("nothing was measured yet: forgegate bench start --model NAME")
    return str(runs[0]["id"])


def _stop(client: AdminClient, args: argparse.Namespace) -> int:
    run = client.stop_benchmark(args.run)
    print(json.dumps(run, indent=2) if args.json else f"{run['id']}: {headline(run)}")
    return DONE


def _print(run: Run, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(run, indent=2))
        return
    show_run(run)
    if run["state"] == "done":
        print(f"report: {_report_of(run['id'], args)}")


def _report_of(run_id: str, args: argparse.Namespace) -> str:
    """Where it lies, as far as it is known here: the folder of a gateway that was named by its URL is not."""
    if args.admin_url is None:
        return str(Home.from_env().benchmarks / run_id / REPORT)
    return f"{args.admin_url.rstrip('/')}/admin/v1/benchmarks/{run_id}/report?format=html (with the admin token)"


def _form_of(path: Path) -> str:
    """Raises UsageError."""
    if path.suffix.lower() not in FORMS:
        raise UsageError(f"--out {path}: a report is fetched as {' or '.join(FORMS)}: name such a file")
    return FORMS[path.suffix.lower()]


def _numbers(kind: Callable[[str], float]) -> Callable[[str], list[float]]:
    """`1,8,32`."""

    def parse(text: str) -> list[float]:
        try:
            return [kind(part) for part in text.split(",")]
        except (ValueError, argparse.ArgumentTypeError) as exc:
            raise argparse.ArgumentTypeError(f"numbers separated by commas, for example 1,8, not {text!r}") from exc

    return parse
