"""`forgegate bench static`: what static batching by transformers' `generate` reaches, for comparison."""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from benchmarks import arguments, eventloop, report
from benchmarks.child import ChildError
from benchmarks.claims.child import TorchChild, torch_child
from benchmarks.claims.contestants import asked
from benchmarks.claims.models import DEMO, DEMO_TARGET
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USAGE, refuse
from benchmarks.commands.result import deliver
from benchmarks.commands.run import console
from benchmarks.loadgen import interleave
from benchmarks.traffic.prompts import PromptForm
from benchmarks.workload import Endpoint, Workload

_EXAMPLE = """example:
  forgegate bench static --model ./llama-8b --python python3 --device cuda --dtype bfloat16 --batch 16,32,64

Prompts are random ids. Batches are padded and computed until their longest answer ends; only tokens up to each answer's own end are
counted. With --no-ignore-eos an answer ends where the model ends it, at most after the drawn length.

exit codes: 0 done, 2 bad usage, 3 torch or transformers are missing in that interpreter"""
SCRIPT = "static_batching.py"


def add(commands: Any) -> None:
    """Its parser."""
    text = "static batching by transformers' generate: useful tokens a second by size of the batch"
    static = commands.add_parser("static", help=text, description=text, epilog=_EXAMPLE)
    add = static.add_argument
    add("--model", default=DEMO, metavar="DIR", help="folder of safetensors (default: the demo model)")
    add(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with torch and transformers (default: this)",
    )
    add("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="default float32")
    add("--batch", type=arguments.levels, default=(1, 8, 32), metavar="N,N", help="sizes to try (default 1,8,32)")
    add("--requests", type=arguments.whole(1), default=64, metavar="N", help="of each turn (default 64)")
    add("--input-tokens", type=arguments.length, default="64", metavar="N", help="prompt length (default 64)")
    add(
        "--output-tokens",
        type=arguments.length,
        default="lognormal:64,0.9,8-256",
        metavar="N",
        help="(default %(default)s)",
    )
    add(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="answers as long as drawn (default on)",
    )
    add("--repeats", type=arguments.whole(1), default=3, metavar="R", help="turns of all sizes (default 3)")
    add("--seed", type=arguments.whole(0), default=0, help="of prompts and lengths (default 0)")
    add("--out", type=Path, metavar="FILE.json", help="write the result here too")
    add("--json", action="store_true", help="print JSON instead of the table")
    static.set_defaults(function=_static)


def _static(options: argparse.Namespace, words: Sequence[str]) -> int:
    model = DEMO_TARGET if options.model == DEMO else Path(options.model)
    config = model / "config.json"
    if not config.is_file():
        return refuse(f"--model {options.model}: holds no config.json", EXIT_USAGE)
    try:
        vocab_size = int(orjson.loads(config.read_bytes())["vocab_size"])
    except (ValueError, KeyError, TypeError):
        return refuse(f"{config} does not say vocab_size", EXIT_USAGE)
    if options.out:
        report.require_writable(options.out)
    workload = Workload(
        "static",
        Endpoint.COMPLETIONS,
        options.input_tokens,
        options.output_tokens,
        PromptForm.IDS,
        vocab_size,
        ignore_eos=options.ignore_eos,
    )
    try:
        sizes = eventloop.run(_measure(model, options, workload))
    except ChildError as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT)
    result = _document(options, words, sizes)
    deliver(options, result, _print)
    return EXIT_DONE


async def _measure(model: Path, options: argparse.Namespace, workload: Workload) -> dict[int, list[dict[str, Any]]]:
    words = [str(model), "--device", options.device, "--dtype", options.dtype]
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in options.batch}
    with tempfile.TemporaryDirectory(prefix="forgegate-bench-") as folder:
        async with torch_child(options.python, SCRIPT, words, Path(folder) / "generate.log") as child:
            await _turn(child, workload, options, min(options.batch), "warm-up")
            for turn, size in interleave(options.batch, options.repeats):
                if not any(answer.get("out_of_memory") for answer in found[size]):
                    found[size].append(await _turn(child, workload, options, size, f"{options.seed}/{turn}"))
                    sys.stderr.write(f"[{turn + 1}/{options.repeats}] batch {size}: {found[size][-1]}\n")
    return found


async def _turn(
    child: TorchChild, workload: Workload, options: argparse.Namespace, size: int, seed: str
) -> dict[str, Any]:
    """All requests in batches of a size; to warm up, one batch."""
    num = size if seed == "warm-up" else options.requests
    requests = workload.requests(num, seed)
    return await child.ask(do="generate", batch=size, ignore_eos=options.ignore_eos, **asked(requests))


def _document(
    options: argparse.Namespace, words: Sequence[str], sizes: dict[int, list[dict[str, Any]]]
) -> dict[str, Any]:
    rows = [_row(size, answers) for size, answers in sizes.items()]
    whole = [row for row in rows if row["useful_tok_s"] is not None]
    return report.document(
        "static", ["forgegate", "bench", *words], model=Path(options.model).name, requests=options.requests, repeats=options.repeats,
        seed=options.seed, input_tokens=str(options.input_tokens), output_tokens=str(options.output_tokens), ignore_eos=options.ignore_eos,
        device=options.device, dtype=options.dtype, sizes=rows,
        best_batch=max(whole, key=lambda row: row["useful_tok_s"]["median"])["batch"] if whole else None,
    )  # fmt: skip


def _row(size: int, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if any(answer.get("out_of_memory") for answer in answers):
        return {"batch": size, "useful_tok_s": None, "useful_share": None}
    rates = [answer["useful_tokens"] / answer["seconds"] for answer in answers]
    share = sum(answer["useful_tokens"] for answer in answers) / sum(answer["computed_tokens"] for answer in answers)
    return {
        "batch": size, "useful_tok_s": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}, "useful_share": share
    }  # fmt: skip


def _print(result: dict[str, Any]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("batch", "useful tok/s", "min-max", "useful share"):
        table.add_column(name, justify="right")
    for row in result["sizes"]:
        rate = row["useful_tok_s"]
        if rate is None:
            table.add_row(str(row["batch"]), "out of memory", "", "")
            continue
        spread = f"{rate['min']:,.0f}-{rate['max']:,.0f}"
        table.add_row(str(row["batch"]), f"{rate['median']:,.0f}", spread, f"{row['useful_share']:.0%}")
    console().print(table)
