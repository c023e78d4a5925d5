"""`forgegate quantize`: a model in smaller forms, and what each costs."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from backends.argtypes import positive
from backends.errors import ModelUnusable
from backends.hub.names import looks_like_hub_name, parse_name
from backends.hub.pulled import find_pulled
from backends.hub.store import Store
from backends.llamacpp.launch import DEMO, DEMO_DIR, locate_model
from backends.llamacpp.quantize.levels import LEVELS, parse
from backends.llamacpp.quantize.text import demo_held_out, demo_training, read_text
from gateway.exits import DONE, CommandError, UsageError
from gateway.home import Home
from gateway.quantize.job import carry_out
from gateway.quantize.order import Order, Result
from gateway.quantize.view import Bars, as_json, print_result

EXAMPLE = """MODEL is a folder of safetensors, an F16, BF16, F32 or Q8_0 GGUF, `demo`, or ORG/NAME[:QUANT] that was pulled.

levels, largest first (of an 8B model):
{levels}
  awq      a folder for vLLM, 4 bits in groups (5.7 GB): needs the environment `awq` (forgegate install awq)

Perplexity is measured on --text, in windows of 512 tokens whose second half is scored; the interval is over windows. Its ratio to the
largest form is measured window by window, which is far more exact than the difference of two perplexities. Speeds are measured round by
round, every file once in each. Every file carries the digest of the weights that it was made from: pools of one model may serve several
of them at the same time. An importance matrix (--calibrate, --imatrix) makes the levels below Q6_K better at the same size.

examples:
  forgegate quantize demo --to all
  forgegate quantize ./my-merged-model --to Q5_K_M,Q4_K_M --calibrate chats.txt --text held-out.txt
  forgegate quantize model-f16.gguf --to all --dry-run       sizes only; nothing is written
  forgegate quantize ./my-merged-model --to awq --calibrate chats.txt
"""
SIZES_8B = ("16.1", "8.5", "6.6", "5.7", "5.6", "4.9", "4.7", "4.5", "4.0", "3.2")
IMATRIX = "--imatrix"
STOPPED = 143
WINDOWS = 64


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    home = Home.from_env()
    with ExitStack() as stack:
        order = _order(args, home, stack)
        home.ensure()
        result = _run(order, args.json)
    if result is None:
        return STOPPED
    if args.json:
        print(json.dumps(as_json(result), indent=2, ensure_ascii=False))
    else:
        print_result(result)
    if result.failure:
        raise CommandError(result.failure)
    return DONE


def parser() -> argparse.ArgumentParser:
    rows = [
        f"  {level.name:<8} {level.words} ({size} GB)" for level, size in zip(LEVELS.values(), SIZES_8B, strict=True)
    ]
    parser = argparse.ArgumentParser(
        "forgegate quantize", description="Make smaller forms of a model, and measure what each costs.",
        epilog=EXAMPLE.format(levels="\n".join(rows)), formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="folder, GGUF file, demo, or ORG/NAME[:QUANT]")
    parser.add_argument("--to", required=True, metavar="LEVEL,...", help="levels, all, awq")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: $FORGEGATE_HOME/models/quantized/NAME")
    matrix = parser.add_mutually_exclusive_group()
    matrix.add_argument(
        "--imatrix", type=Path, metavar="FILE", help="use this importance matrix (GGUF, or the older .dat)"
    )
    matrix.add_argument(
        "--calibrate", metavar="FILE",
        help="compute the importance matrix from this text, and calibrate awq with it (demo: the demo corpus' training text)",
    )  # fmt: skip
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="measure perplexity on this text (default for demo: its held-out text)",
    )
    parser.add_argument(
        "--windows",
        type=positive,
        default=WINDOWS,
        metavar="N",
        help=f"of that text at most N windows (default: {WINDOWS})",
    )
    parser.add_argument("--no-measure", action="store_true", help="neither perplexity nor speed")
    parser.add_argument("--requantize", action="store_true", help="also of a GGUF that is quantised below Q8_0 already")
    parser.add_argument("--dry-run", action="store_true", help="only say how large each level will be")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _order(args: argparse.Namespace, home: Home, stack: ExitStack) -> Order:
    """Raises UsageError, BackendError."""
    wanted = parse(args.to)
    path = _find(args.model, home, stack)
    if args.no_measure and args.text:
        raise UsageError("--text and --no-measure exclude each other")
    if args.imatrix and not wanted.levels:
        raise UsageError("--imatrix is for GGUF levels, and awq uses none: calibrate it with --calibrate FILE")
    is_demo = path == DEMO_DIR
    work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forgegate-quantize-")))
    given = _calibration(args, work)
    return Order(
        model=path, wanted=wanted, home=home, out=_out(args.out),
        imatrix=_file(args.imatrix, IMATRIX), calibration=given,
        awq_calibration=given or (_demo_training(work) if is_demo and wanted.awq else None),
        text=_text(args, work, is_demo), text_name=str(args.text) if args.text else "the demo corpus' held-out text",
        most_windows=args.windows, measures=not args.no_measure, is_forced=args.requantize, is_dry_run=args.dry_run,
    )  # fmt: skip


def _out(path: Path | None) -> Path | None:
    """Raises UsageError."""
    if path is None:
        return None
    path = path.expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file: name a folder")
    return path


def _find(name: str, home: Home, stack: ExitStack) -> Path:
    """A path. What was pulled stays until the command ends. Raises UsageError, BackendError."""
    if looks_like_hub_name(name):
        found = find_pulled(Store(home.hub), parse_name(name))
        lease = found[0].lease(found[1]) if found else None
        if found is None or lease is None:
            raise UsageError(f"{name}: no such file or folder, and not pulled: forgegate models pull {name}")
        stack.callback(lease.close)
        return found[0].entry_of(found[1])
    path = locate_model(name)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise ModelUnusable(
            f"{path}: a LoRA adapter, not a model: adapters stay as they are and fit every form of their base; to quantise "
            "both as one, merge them first (forgegate export)"
        )
    return path


def _file(path: Path | None, option: str) -> Path | None:
    """Raises UsageError, TextUnreadable."""
    if path is None:
        return None
    path = path.expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"{option} {path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    if option != IMATRIX:
        read_text(path)  # rather now than after an hour of work
    return path


def _text(args: argparse.Namespace, work: Path, is_demo: bool) -> Path | None:
    if args.text or not is_demo or args.no_measure:
        return _file(args.text, "--text")
    path = work / "demo-held-out.txt"
    path.write_text(demo_held_out(), encoding="utf-8")
    return path


def _calibration(args: argparse.Namespace, work: Path) -> Path | None:
    """What --calibrate names."""
    if args.calibrate == DEMO and not Path(DEMO).is_file():
        return _demo_training(work)
    return _file(Path(args.calibrate), "--calibrate") if args.calibrate is not None else None


def _demo_training(work: Path) -> Path:
    path = work / "demo-training.txt"
    path.write_text(demo_training(), encoding="utf-8")
    return path


def _run(order: Order, is_json: bool) -> Result | None:
    """None where SIGTERM stopped it."""
    with Bars(sys.stderr, is_quiet=is_json) as show:
        return asyncio.run(_until_stopped(order, show))


async def _until_stopped(order: Order, show: Bars) -> Result | None:
    work = asyncio.ensure_future(carry_out(order, show))
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        show.note("stopped: what was not finished is removed")
        current = asyncio.current_task()
        if current is not None and current.cancelling():  # Ctrl-C: asyncio ends the command
            raise
        return None
