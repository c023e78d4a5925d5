"""`forgegate bench`: measure an OpenAI-compatible endpoint, or be a programmable one."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks import arguments, eventloop, report
from benchmarks.arguments import Parser
from benchmarks.campaign import Level, MeasuredRun, Plan, WarmUpError, run_plan
from benchmarks.client import Client, Target, TargetError
from benchmarks.probe import UnusableError, find_model
from benchmarks.record import FailureKind
from benchmarks.workload import Endpoint, PromptForm, Workload, WorkloadError, read_prompts

EXIT_DONE, EXIT_NEGATIVE, EXIT_USAGE, EXIT_ENVIRONMENT = range(4)

_RUN_EXAMPLE = """example:
  forgegate bench run --url http://127.0.0.1:8080 --model demo --concurrency 1,8,32 --output-tokens 128

exit codes: 0 done, 1 measured but not valid (requests failed, short answers, client too slow), 2 bad usage,
3 the server cannot be reached"""

_MOCK_EXAMPLE = """example:
  forgegate bench mock --port 9000 --ttft-ms 20 --itl-ms 20 --tokens 100 --disconnect-rate 0.1

one request can override every option: header `x-mock: ttft_ms=5, tokens=3` or body field `"mock": {"ttft_ms": 5}`.
Every chunk holds `mock.sent_s`, its send time by CLOCK_MONOTONIC. GET /mock/stats counts what the mock saw.
FORGEGATE_ENGINE_SECRET, if set, is demanded as bearer token."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; `argv` is what stands behind `forgegate bench`."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(words)
    except SystemExit as exc:  # argparse has said all there is to say
        return int(exc.code or 0)
    try:
        return int(options.function(options, words))
    except (WorkloadError, TargetError) as exc:
        return _refuse(str(exc), EXIT_USAGE)
    except UnusableError as exc:
        return _refuse(str(exc), EXIT_ENVIRONMENT if exc.is_environment else EXIT_USAGE)
    except KeyboardInterrupt:
        return _refuse("stopped", 130)


def _parser() -> Parser:
    parser = Parser(prog="forgegate bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", parser_class=Parser)
    _add_run(commands)
    _add_mock(commands)
    return parser


def _add_run(commands: Any) -> None:
    text = "measure throughput and latency in a closed loop"
    run = commands.add_parser("run", help=text, description=text, epilog=_RUN_EXAMPLE)
    run.set_defaults(function=_run)
    add = run.add_argument
    add("--url", default="http://127.0.0.1:8080", help="server's root (default %(default)s)")
    add("--model", help="default: the server's only one")
    add("--api-key", help="bearer token (default: $FORGEGATE_API_KEY); never written to results")
    add("--concurrency", type=arguments.levels, default=(1, 8, 32), metavar="C,C", help="streams (default 1,8,32)")
    add(
        "--requests",
        type=arguments.whole(1),
        metavar="N",
        help="per level and repeat (default 4 per stream, at least 8)",
    )
    add("--repeats", type=arguments.whole(1), default=1, metavar="R", help="of all levels, interleaved (default 1)")
    add(
        "--warmup",
        type=arguments.whole(0),
        metavar="N",
        help="requests before the clock starts (default: highest level)",
    )
    add("--timeout", type=arguments.number(0.01), default=600.0, metavar="S", help="for a whole request (default 600)")
    add("--keep-alive", choices=("on", "off"), default="on", help="off: a fresh connection for each request")
    add("--seed", type=arguments.whole(0), default=0, help="of the prompts (default 0)")
    add("--out", type=Path, metavar="FILE.json", help="write the result here too")
    add("--json", action="store_true", help="print JSON instead of the table")
    add_workload_options(run)


def add_workload_options(parser: argparse.ArgumentParser) -> None:
    """What is asked; shared with the comparison of peers."""
    add = parser.add_argument
    toggle = argparse.BooleanOptionalAction
    add("--endpoint", choices=[each.value for each in Endpoint], default="chat", help="API (default chat)")
    add("--input-tokens", type=arguments.length, default="32", metavar="N|A-B", help="prompt length (default 32)")
    add("--output-tokens", type=arguments.length, default="128", metavar="N|A-B", help="answer length (default 128)")
    add("--prompt-form", choices=[each.value for each in PromptForm], default="words", help="ids: completions only")
    add("--vocab-size", type=arguments.whole(1), default=4096, help="for --prompt-form ids (default 4096)")
    add(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="prompts from a file: lines of text, or .jsonl with prompt or messages",
    )
    add("--ignore-eos", action=toggle, default=True, help="ask for answers of full length (default on)")
    add("--min-tokens", action=toggle, default=False, help="ask for it by min_tokens too (default off)")
    add("--temperature", type=arguments.number(0), default=0.0, help="default 0")
    add("--body", default="{}", metavar="JSON", help="fields merged into every request")


def _add_mock(commands: Any) -> None:
    from benchmarks.mock_behaviour import Behaviour

    text = "serve a fast programmable stub engine"
    mock = commands.add_parser("mock", help=text, description=text, epilog=_MOCK_EXAMPLE)
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


def workload_of(options: argparse.Namespace, model: str) -> Workload:
    """From the parsed options; raises WorkloadError."""
    try:
        extra = orjson.loads(options.body)
    except orjson.JSONDecodeError as exc:
        raise WorkloadError(f"--body is not JSON: {exc}") from exc
    if not isinstance(extra, dict):
        raise WorkloadError("--body must be a JSON object")
    return Workload(
        model=model,
        endpoint=Endpoint(options.endpoint),
        input_tokens=options.input_tokens,
        output_tokens=options.output_tokens,
        prompt_form=PromptForm(options.prompt_form),
        vocab_size=options.vocab_size,
        prompts=read_prompts(options.prompts) if options.prompts else (),
        ignore_eos=options.ignore_eos,
        min_tokens=options.min_tokens,
        temperature=options.temperature,
        extra=extra,
    )


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    target = Target.from_url(options.url, options.api_key or os.environ.get("FORGEGATE_API_KEY"))
    workload_of(options, "")  # bad input is refused before the server is asked
    plan, levels = eventloop.run(_measure(options, target))
    result = report.run_document(["forgegate", "bench", *words], target.url, plan, levels)
    data = report.dump(result)
    if options.out:
        report.write(options.out, data)
    if options.json:
        sys.stdout.write(data.decode())
    else:
        report.print_levels(levels, console())
    return EXIT_DONE if result["is_valid"] else EXIT_NEGATIVE


async def _measure(options: argparse.Namespace, target: Target) -> tuple[Plan, list[Level]]:
    client = Client(target, keep_alive=options.keep_alive == "on", timeout_s=options.timeout)
    try:
        model = await find_model(client, options.model)
        workload = workload_of(options, model)
        plan = Plan(workload, options.concurrency, options.requests, options.repeats, options.warmup, options.seed)
        num_runs = len(plan.levels) * plan.repeats

        def on_run(run: MeasuredRun) -> None:
            sys.stderr.write(report.progress_line(run, num_runs) + "\n")

        return plan, await run_plan(client, plan, on_run)
    except WarmUpError as exc:
        raise UnusableError(_with_hint(exc), is_environment=not _is_refusal(exc)) from exc
    finally:
        client.close()
        await asyncio.sleep(0)


def _is_refusal(error: WarmUpError) -> bool:
    return error.failure.kind is FailureKind.HTTP_STATUS and error.failure.detail.startswith("4")


def _with_hint(error: WarmUpError) -> str:
    is_eos = "ignore_eos" in error.failure.detail
    return str(error) + (" (--no-ignore-eos leaves that field out)" if is_eos else "")


def _mock(options: argparse.Namespace, words: Sequence[str]) -> int:
    from benchmarks.mock_behaviour import Behaviour, BehaviourError
    from benchmarks.mock_server import MockEngine, secret_from_environment, serve

    try:
        behaviour = Behaviour(**{spec.name: getattr(options, spec.name) for spec in fields(Behaviour)})
    except BehaviourError as exc:
        return _refuse(str(exc), EXIT_USAGE)
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
        return _refuse(f"cannot listen on {options.host}:{options.port}: {exc.strerror or exc}", EXIT_ENVIRONMENT)
    return EXIT_DONE


def console() -> Console:
    """Standard output; wide enough for the table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
