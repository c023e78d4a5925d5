"""`forgegate bench micro`: the engine's library without HTTP, against the roofline of this device."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import arguments, report
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USAGE, refuse
from benchmarks.commands.result import deliver
from benchmarks.commands.run import console

_EXAMPLE = """examples:
  forgegate bench micro                                    the demo model
  forgegate bench micro --model model.gguf --batch 1,8,32 --context 1,2048 --prompt 512

The roofline is what the device's measured bandwidth and arithmetic would allow: weights and cached tokens read once a step, two
operations a parameter and token, the output head only for the tokens whose logits are asked for.
exit codes: 0 done, 2 bad usage, 3 the llama.cpp engine is not installed here"""


def add(commands: Any) -> None:
    """Its parser."""
    text = "prefill and decode of the llama.cpp engine without HTTP, against the roofline"
    micro = commands.add_parser("micro", help=text, description=text, epilog=_EXAMPLE)
    add = micro.add_argument
    add("--model", default="demo", metavar="FILE.gguf", help="default: the demo model")
    add(
        "--prompt",
        type=arguments.levels,
        default=(128, 512),
        metavar="N,N",
        help="tokens of prefills (default 128,512)",
    )
    add(
        "--batch",
        type=arguments.levels,
        default=(1, 8, 32),
        metavar="N,N",
        help="sequences of decoding (default 1,8,32)",
    )
    add("--context", type=_contexts, default=(0, 512), metavar="N,N", help="tokens before (default 0,512)")
    add("--repeats", type=arguments.whole(1), default=5, metavar="R", help="turns of all cases (default 5)")
    add("--threads", type=arguments.whole(0), default=0, metavar="N", help="0: one for each physical core (default 0)")
    add(
        "--gpu-layers",
        type=arguments.whole(-1),
        default=0,
        metavar="N",
        help="on the GPU: 0 or all of them, -1 (default 0)",
    )
    add("--separate-kv", action="store_true", help="KV cells of its own for each sequence, as kv_unified: false")
    add("--out", type=Path, metavar="FILE.json", help="write the result here too")
    add("--json", action="store_true", help="print JSON instead of the table")
    micro.set_defaults(function=_micro)


def _contexts(text: str) -> tuple[int, ...]:
    """`0,512`: numbers of tokens, each once."""
    parse = arguments.whole(0)
    found = tuple(parse(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError("names no number of tokens: write for example 0,512")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a number of tokens twice: use --repeats for that")
    return found


def _micro(options: argparse.Namespace, words: Sequence[str]) -> int:
    try:
        from benchmarks import micro
    except ImportError as exc:
        return refuse(f"{exc.name or exc} is not here: forgegate install llamacpp, and run it there", EXIT_ENVIRONMENT)
    if options.out:
        report.require_writable(options.out)
    cases = micro.cases_of(options.prompt, options.batch, options.context)
    plan = micro.Plan(
        cases, options.repeats, micro.threads(options.threads), options.gpu_layers, not options.separate_kv
    )
    try:
        with tempfile.TemporaryDirectory(prefix="forgegate-bench-") as cache:
            found = micro.measure(micro.locate(options.model, Path(cache)), plan, _say)
    except micro.MicroError as exc:
        return refuse(str(exc), EXIT_USAGE)
    except ImportError as exc:
        return refuse(f"{exc.name or exc} is not here, which measures the GPU's roofline", EXIT_ENVIRONMENT)
    result = report.document(
        "micro", ["forgegate", "bench", *words], **found, threads=plan.num_threads, gpu_layers=plan.num_gpu_layers,
        kv_unified=plan.is_unified, repeats=plan.repeats,
    )  # fmt: skip
    deliver(options, result, _print)
    return EXIT_DONE


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _print(result: dict[str, Any]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("case")
    for name in ("tok/s", "min-max", "roofline", "reached", "bound by"):
        table.add_column(name, justify="right")
    for row in result["cases"]:
        rate = row["tok_s"]
        table.add_row(
            row["case"], f"{rate['median']:,.0f}", f"{rate['min']:,.0f}-{rate['max']:,.0f}", f"{row['roofline_tok_s']:,.0f}",
            f"{row['share_of_roofline']:.0%}", row["bound"],
        )  # fmt: skip
    console().print(table)
    device = result["device"]
    console().print(
        f"{result['model']}, {result['threads']} threads; {device['name']}: {device['bytes_per_s'] / 1e9:,.1f} GB/s over as many bytes "
        f"as the model has, {device['flops'] / 1e9:,.0f} GFLOP/s",
        highlight=False,
    )
