"""Do load generators agree? Ours, `vllm bench serve` and GuideLLM measure the same endpoint with the same load, in turns.

    python -m benchmarks.agreement --url http://127.0.0.1:9000 --model mock --tokenizer DIR --vllm-python PYTHON --out FILE.json

Each is a child of its own interpreter; who has none here is left out, and it is said. FILE.md has the table, with what each tool means
by a figure. Exit codes: 0 they agree, or a definition can account for it; 1 a difference is unexplained; 2 bad usage; 3 a tool did not
measure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import arguments, report
from benchmarks.agreement_report import document_of, rows_of, table
from benchmarks.agreement_tools import Load, Tool, tools
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, refuse
from benchmarks.foreign.definitions import GUIDELLM, VLLM
from benchmarks.foreign.measured import ForeignError, Measured, MeasuredLoad
from benchmarks.foreign.reading import documents_of, measured_of
from benchmarks.statistics.difference import MIN_PAIRS
from benchmarks.traffic.errors import WorkloadError

RUN_S = 600.0


class ToolError(RuntimeError):
    """A tool did not measure; the message has its last line."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(words)
    except SystemExit as exc:  # argparse has said all there is to say
        return int(exc.code or 0)
    load = Load(
        options.url.rstrip("/"), options.model, options.tokenizer.absolute(), options.concurrency, options.requests, options.input_tokens,
        options.output_tokens, options.endpoint,
    )  # fmt: skip
    try:
        report.require_writable(options.out)
        known = tools({VLLM: options.vllm_python, GUIDELLM: options.guidellm_python})
        left_out = {tool.name: why for tool in known if (why := tool.lacking())}
        measured = measure([tool for tool in known if tool.name not in left_out], load, options.turns)
    except WorkloadError as exc:
        return refuse(str(exc), EXIT_USAGE)
    except (ToolError, ForeignError) as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT)
    except KeyboardInterrupt:
        return refuse("stopped", 130)
    result = _document(words, load, options.turns, measured, left_out)
    report.write(options.out, report.dump(result))
    text = table(result)
    report.write(options.out.with_suffix(".md"), text.encode())
    sys.stdout.write(text)
    return EXIT_DONE if result["is_explained"] else EXIT_NEGATIVE


def measure(known: Sequence[Tool], load: Load, num_turns: int) -> dict[str, list[Measured]]:
    """By tool, one result a turn; who begins changes each time. Raises ToolError, ForeignError."""
    found: dict[str, list[Measured]] = {tool.name: [] for tool in known}
    with tempfile.TemporaryDirectory(prefix="agreement-") as folder:
        for turn in range(num_turns):
            first = turn % len(known)
            for tool in (*known[first:], *known[:first]):
                out = Path(folder, f"{tool.module.partition('.')[0]}-{turn}.json")
                sys.stderr.write(f"turn {turn + 1} of {num_turns}: {tool.name}\n")
                _run(tool, tool.argv(load, out, seed=turn + 1))
                found[tool.name].append(measured_of(out, documents_of(out)))
    return found


def _run(tool: Tool, argv: Sequence[str]) -> None:
    """Until it has ended, with all that it started."""
    env = {**os.environ, "OPENAI_API_KEY": os.environ.get("FORGEGATE_API_KEY", "unused"), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )
        try:
            code = child.wait(RUN_S)
        except subprocess.TimeoutExpired as exc:
            raise ToolError(f"{tool.name} had not ended after {RUN_S:g} s") from exc
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if code:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            raise ToolError(f"{tool.name} ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}")


def _document(
    words: Sequence[str],
    load: Load,
    num_turns: int,
    measured: Mapping[str, Sequence[Measured]],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The result file."""
    runs = {tool: [_only(each) for each in results] for tool, results in measured.items()}
    plan = {**asdict(load), "tokenizer": load.tokenizer.name, "turns": num_turns}
    return report.document(
        "agreement", ["python", "-m", "benchmarks.agreement", *words], plan=plan, left_out=left_out,
        tool_versions={tool: results[0].version for tool, results in measured.items()}, **document_of(rows_of(runs), runs),
    )  # fmt: skip


def _only(measured: Measured) -> MeasuredLoad:
    """Of one run there is one load."""
    (load,) = measured.loads
    return load


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m benchmarks.agreement", description=__doc__)
    add = parser.add_argument
    add("--url", required=True, help="server's root")
    add("--model", required=True, help="as the server calls it")
    add(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="DIR",
        help="with which the others make prompts of so many tokens",
    )
    add("--vllm-python", metavar="PYTHON", help="an interpreter that has vllm")
    add("--guidellm-python", metavar="PYTHON", help="an interpreter that has guidellm")
    add("--endpoint", choices=("chat", "completions"), default="chat", help="API (default chat)")
    add("--concurrency", type=arguments.whole(1), default=8, metavar="C", help="streams (default 8)")
    add("--requests", type=arguments.whole(1), default=64, metavar="N", help="of each run (default 64)")
    add("--input-tokens", type=arguments.whole(1), default=32, metavar="N", help="default 32")
    add("--output-tokens", type=arguments.whole(2), default=64, metavar="N", help="default 64")
    add(
        "--turns",
        type=arguments.whole(MIN_PAIRS),
        default=5,
        metavar="N",
        help="in which each tool measures once (default 5)",
    )
    add("--out", type=Path, required=True, metavar="FILE.json", help="the result; FILE.md beside it")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
