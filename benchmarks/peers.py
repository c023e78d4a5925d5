"""Several servers side by side on one model file, interleaved in one run: `python -m benchmarks.peers`.

All are started and warmed first and stay resident; only one is measured at a time, in turns over repeats, levels and
peers, so that a machine's drift falls on all. Writes JSON, and a Markdown table beside it.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import arguments, eventloop, llama_server, packaged_venv, peer_report, peer_schema, report
from benchmarks.arguments import Parser
from benchmarks.campaign import MeasuredRun, Plan, WarmUpError, level_of, measure, warm_up
from benchmarks.child import Child, ChildError
from benchmarks.client import Client, Target
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended
from benchmarks.commands.workload_options import add_workload_options, workload_of
from benchmarks.environment import cpu_busy, num_cores
from benchmarks.loadgen import interleave
from benchmarks.peer_launch import PEERS, Peer, PeerError, Setup, peer
from benchmarks.peer_report import PeerResult
from benchmarks.workload import Endpoint, Workload, WorkloadError

_EXAMPLE = """examples:
  python -m benchmarks.peers --model demo.gguf --peers forgegate-engine,llama-cpp-python --concurrency 1,8,32 \\
      --output-tokens 128 --repeats 3 --out benchmarks/results/peers.json
  python -m benchmarks.peers --model demo.gguf --peers forgegate-engine,llama-server --constrained --out schema.json

exit codes: 0 done, 1 measured but not valid, 2 bad usage, 3 a server could not be started"""

_BASELINES = ("llama-server", "llama-cpp-python")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(
        lambda: _compare(_parser().parse_args(words), words),
        {
            WorkloadError: EXIT_USAGE,
            PeerError: EXIT_ENVIRONMENT,
            ChildError: EXIT_ENVIRONMENT,
            WarmUpError: EXIT_ENVIRONMENT,
        },
    )


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE.gguf", help="the same file for every peer")
    add(
        "--peers", type=arguments.names, default=("forgegate-engine", "llama-cpp-python"), help=f"of {', '.join(PEERS)}"
    )
    add("--baseline", help=f"ratios are over this peer (default the first of {', '.join(_BASELINES)}, else of --peers)")
    add("--concurrency", type=arguments.levels, default=(1, 8, 32), metavar="C,C", help="streams (default 1,8,32)")
    add("--requests", type=arguments.whole(1), metavar="N", help="per run (default 2 per stream, at least 8)")
    add("--repeats", type=arguments.whole(1), default=3, metavar="R", help="default 3")
    add("--warmup", type=arguments.whole(1), default=8, metavar="N", help="requests per peer (default 8)")
    add("--timeout", type=arguments.number(0.01), default=600.0, metavar="S", help="for a whole request (default 600)")
    add("--seed", type=arguments.whole(0), default=0, help="of the prompts (default 0)")
    add(
        "--threads",
        type=arguments.whole(1),
        default=num_cores(),
        metavar="T",
        help="of each server (default: all cores)",
    )
    add("--server-cpus", type=arguments.cores, default=(), metavar="0,1", help="pin the servers to these cores")
    add("--client-cpus", type=arguments.cores, default=(), metavar="1", help="pin the load generator to these cores")
    add("--packaged-python", type=Path, help="interpreter with llama_cpp.server (default: made under the user's cache)")
    add("--packaged-wheel", type=Path, help="llama-cpp-python wheel for that environment")
    add(
        "--llama-server",
        type=Path,
        metavar="PATH",
        help="llama.cpp's own server (default: built under the user's cache)",
    )
    add(
        "--prefix-cache",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let servers reuse prompts (default off)",
    )
    add(
        "--kv-unified",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="our engine keeps one KV cache for all streams, its default; --no-kv-unified: one for each, as llama-server does here",
    )
    schema = parser.add_mutually_exclusive_group()
    schema.add_argument(
        "--constrained", action="store_true", help="answers must follow a JSON schema: a long list of records"
    )
    schema.add_argument(
        "--json-schema",
        type=Path,
        metavar="FILE",
        help="another schema; no answer may be complete before its tokens are up",
    )
    add("--out", type=Path, required=True, metavar="FILE.json", help="result; the table goes to FILE.md")
    add_workload_options(parser)
    return parser


def _compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    _check(options)
    schema = _schema(options)
    plan = Plan(
        _workload(options, schema),
        options.concurrency,
        options.requests,
        options.repeats,
        options.warmup,
        options.seed,
        requests_per_stream=2,
    )
    with tempfile.TemporaryDirectory(prefix="forgegate-peers-") as workdir:
        setup = _setup(options, Path(workdir))
        peers = [peer(name, setup) for name in options.peers]
        if options.client_cpus:
            os.sched_setaffinity(0, options.client_cpus)
        with _running(peers, setup, options.server_cpus) as children:
            busy, results = eventloop.run(_measure(peers, children, plan, options.timeout))
        result = peer_report.peers_document(
            ["python", "-m", "benchmarks.peers", *words], setup, plan, results, _baseline(options), busy, schema
        )
    table = peer_report.markdown(result)
    report.write(options.out, report.dump(result))
    report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    return EXIT_DONE if result["is_valid"] else EXIT_NEGATIVE


def _check(options: argparse.Namespace) -> None:
    unknown = [name for name in (*options.peers, _baseline(options)) if name not in PEERS]
    if unknown:
        raise WorkloadError(f"there is no peer {unknown[0]!r}; one of {', '.join(PEERS)}")
    if _baseline(options) not in options.peers:
        raise WorkloadError(f"the baseline {_baseline(options)!r} is not among the peers")
    if not options.model.is_file():
        raise WorkloadError(f"there is no model file {options.model}")
    if (options.constrained or options.json_schema) and "llama-cpp-python" in options.peers:
        raise WorkloadError("llama-cpp-python's server takes no response_format of type json_schema")


def _baseline(options: argparse.Namespace) -> str:
    if options.baseline:
        return str(options.baseline)
    return next((name for name in _BASELINES if name in options.peers), str(options.peers[0]))


def _schema(options: argparse.Namespace) -> peer_schema.Schema | None:
    if options.json_schema:
        return peer_schema.read_schema(options.json_schema)
    return peer_schema.BUILT_IN if options.constrained else None


def _workload(options: argparse.Namespace, schema: peer_schema.Schema | None) -> Workload:
    workload = workload_of(options, options.model.stem)
    if schema is None:
        return workload
    if workload.endpoint is not Endpoint.CHAT:
        raise WorkloadError("response_format is a field of the chat endpoint")
    return replace(workload, extra={"response_format": peer_schema.response_format(schema), **workload.extra})


def _setup(options: argparse.Namespace, workdir: Path) -> Setup:
    python, binary = options.packaged_python, options.llama_server
    if "llama-cpp-python" in options.peers and python is None:
        python = packaged_venv.ensure(packaged_venv.default_folder(), options.packaged_wheel, _say)
    if "llama-server" in options.peers and binary is None:
        binary = llama_server.ensure(_say)
    # A word may be several tokens in a small vocabulary, and a chat template adds its own: room for four per word.
    room = 4 * options.input_tokens.high + options.output_tokens.high + 64
    return Setup(
        options.model.resolve(),
        options.threads,
        max(options.concurrency),
        room,
        workdir,
        prefix_cache=options.prefix_cache,
        kv_unified=options.kv_unified,
        temperature=options.temperature,
        packaged_python=python,
        llama_server=binary,
    )


@contextmanager
def _running(peers: Sequence[Peer], setup: Setup, cpus: Sequence[int]) -> Iterator[list[Child]]:
    with ExitStack() as stack:
        children = []
        for each in peers:
            child = Child(each.launch, setup.workdir / f"{each.name}.log", cpus)
            stack.callback(child.stop)
            children.append(child)
        yield children


async def _measure(
    peers: Sequence[Peer], children: Sequence[Child], plan: Plan, timeout_s: float
) -> tuple[float | None, list[PeerResult]]:
    clients = {each.name: Client(Target.from_url(each.url), timeout_s=timeout_s) for each in peers}
    plans = {each.name: _plan_for(each, plan) for each in peers}
    for each, child in zip(peers, children, strict=True):
        await child.wait_ready(clients[each.name], timeout_s)
        await warm_up(clients[each.name], plans[each.name])
        clients[each.name].close()
        _say(f"{each.name} is ready and warm")
    await asyncio.sleep(1.0)  # threads of a warm-up's last step may spin for a moment
    busy = await asyncio.to_thread(cpu_busy)
    runs: dict[tuple[str, int], list[MeasuredRun]] = {}
    for order, (repeat, (level, name)) in enumerate(interleave(_turns(plan, peers), plan.repeats)):
        run = await measure(clients[name], plans[name], level, repeat, order)
        # Servers drop idle connections after different times: each run opens its own.
        clients[name].close()
        runs.setdefault((name, level), []).append(run)
        _say(f"{name}: {report.progress_line(run, plan.repeats * len(plan.levels) * len(peers))}")
    await asyncio.sleep(0)
    return busy, [
        PeerResult(each, tuple(level_of(level, runs[each.name, level]) for level in plan.levels)) for each in peers
    ]


def _plan_for(peer: Peer, plan: Plan) -> Plan:
    """The same requests, with what this server needs beside."""
    return replace(plan, workload=replace(plan.workload, extra={**peer.body, **plan.workload.extra}))


def _turns(plan: Plan, peers: Sequence[Peer]) -> list[tuple[int, str]]:
    return [(level, each.name) for level in plan.levels for each in peers]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    raise SystemExit(main())
