"""`forgegate train RECIPE`: one YAML in, an adapter out. This process starts the training and watches it; it has no torch itself."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.argtypes import positive
from backends.errors import BackendError
from finetune.dataset.errors import DataError
from finetune.errors import TrainError
from finetune.output import unread

INTERRUPTED = 130
EXAMPLE = """examples:
  forgegate train recipe.yaml --plan                       what it takes: parameters, memory, time; nothing is started
  forgegate train recipe.yaml --plan --gpu RTX4090 --gpu-hour-price 0.5 --rows 5000
  forgegate train recipe.yaml                              train; the adapter is exported into the run's folder
  forgegate train recipe.yaml --on-oom retry --publish support
  forgegate train recipe.yaml --publish support --rule non-inferior --canary 10 --canary-for 600
  forgegate train recipe.yaml --resume                     go on after Ctrl-C, a crash or a reboot
  forgegate train recipe.yaml --set learning_rate=1e-4 --set num_epochs=2 --out runs/second
  forgegate train --keys                                   every key of a recipe: what it does, or why it is refused

Ctrl-C once: a checkpoint, then the end; twice: at once.
exit codes: 0 done, 1 a guard ended the run, or the gate kept it from going live, 2 bad usage or bad recipe, 3 the environment cannot do
it; Ctrl-C 130, SIGTERM 143
"""
MOST_ROWS = 1_000_000
"""That a plan supposes: it packs them all."""
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}")
"""As the gateway has it."""
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def main(argv: Sequence[str] | None = None, child: Sequence[str] = ()) -> int:
    """`child`: the command of the training process; empty: the one that trains."""
    root = parser()
    args = root.parse_args(argv)
    _require_sense(root, args)
    try:
        code = _run(args, child)
        sys.stdout.flush()
        return code
    except (TrainError, BackendError, DataError) as exc:
        for line in str(exc).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)
    except BrokenPipeError:
        return unread()


def _run(args: argparse.Namespace, child: Sequence[str]) -> int:
    if args.keys:
        from finetune.recipe import keys

        print(json.dumps(keys.as_json(), ensure_ascii=False, indent=1) if args.json else keys.as_text(), end="")
        return 0
    if args.plan:
        from finetune.run import planning

        return planning.plan(args)
    from finetune.run import command

    return command.train(args, child or command.CHILD)


def _require_sense(root: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.keys and args.recipe is None:
        root.error("which recipe? forgegate train RECIPE; all keys of one: forgegate train --keys")
    for name in ("gpu", "gpu_hour_price", "rows", "row_tokens"):
        if getattr(args, name) is not None and not args.plan:
            root.error(f"--{name.replace('_', '-')} goes with --plan")
    if args.row_tokens is not None and args.rows is None:
        root.error("--row-tokens goes with --rows")
    if args.allow_shorter and args.on_oom != "retry":
        root.error("--allow-shorter goes with --on-oom retry")
    if (args.url or args.token or args.model) and not args.publish:
        root.error("--url, --token and --model go with --publish NAME")
    _require_sense_of_release(root, args)
    if args.plan and (args.publish or args.resume):
        root.error("--plan starts nothing: it takes no --publish and no --resume")


def _require_sense_of_release(root: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for name in ("candidate_only", "force", "canary", "canary_for", "rule", "max_items"):
        if getattr(args, name) not in (None, False) and not args.publish:
            root.error(f"--{name.replace('_', '-')} goes with --publish NAME")
    if args.canary_for is not None and args.canary is None:
        root.error("--canary-for goes with --canary PERCENT")
    if args.candidate_only and (args.force or args.canary):
        root.error("--candidate-only moves no alias: it takes no --force and no --canary")


def size(text: str) -> int:
    """`24GiB`, `24GB`, `24G`, `800M`: bytes, in powers of 1,024."""
    number = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:] in "kmgt" else ""
    try:
        found = int(float(number.removesuffix(unit)) * _SIZES[unit])
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 24GiB or 800MiB")
    return found


def _rows(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows from 1 to {MOST_ROWS:,}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)


def _price(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no price: write 3 or 0.45")
    return found


def _override(text: str) -> str:
    if not text.partition("=")[0].strip() or "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r}: write key=value, as in learning_rate=1e-4")
    return text


def _alias(text: str) -> str:
    """Rather now than when training has ended, and the gateway refuses it."""
    if not ALIAS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name: letters, digits and . _ - / only, beginning with a letter or digit, 96 at most"
        )
    return text


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a reason is needed: it is recorded")
    return text.strip()


def _percent(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 99:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of the traffic: write 1 to 99")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 1 to 86400 seconds")
    return found


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="forgegate train", description="Fine-tune a model with LoRA or QLoRA, as a recipe says.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = root.add_argument
    add("recipe", metavar="RECIPE", type=Path, nargs="?", help="a YAML file with Axolotl's keys")
    add("--plan", action="store_true", help="show parameters, memory by part and time; start nothing")
    add("--keys", action="store_true", help="show every key of a recipe")
    add(
        "--set",
        metavar="KEY=VALUE",
        type=_override,
        action="append",
        default=[],
        help="in place of what the recipe says; may be repeated",
    )
    add("--out", metavar="DIR", type=Path, help="folder of the run (default: the recipe's output_dir)")
    add("--resume", action="store_true", help="go on from the newest whole checkpoint of the run that is in the folder")
    add("--on-oom", choices=("stop", "retry"), default="stop",
        help="out of memory: stop and say what helps, or try again with less, the effective batch unchanged (default: stop)")  # fmt: skip
    add(
        "--allow-shorter",
        action="store_true",
        help="let --on-oom retry halve sequence_len at last, which changes what is learned",
    )
    add(
        "--processes",
        metavar="N",
        type=_count,
        default=1,
        help="one for each GPU that trains; each holds a copy of the model (default: 1)",
    )
    add("--memory-limit", metavar="SIZE", type=size, help="take no more memory than this, as 24GiB")
    add("--publish", metavar="NAME", type=_alias,
        help="afterwards publish the adapter to a running gateway as NAME, which serves it once the gate says GO")  # fmt: skip
    add("--url", help="admin address of that gateway (default: the one that runs on this machine)")
    add("--token", help="its admin token (default: this machine's own)")
    add(
        "--model",
        metavar="MODEL",
        help="which of its models the adapter is for (default: the only one that takes adapters)",
    )
    add("--candidate-only", action="store_true", help="end after proof and parity; no alias is moved")
    add("--rule", choices=("improve", "non-inferior"),
        help="of the gate: the task has to be better, or, for retrains, not worse (default: the recipe's, else the suite's)")  # fmt: skip
    add("--max-items", metavar="N", type=positive, help="of each task that the gate asks at most (default: 4000)")
    add("--force", metavar="REASON", type=_reason, help="move the alias whatever the gate says; recorded")
    add("--canary", metavar="PERCENT", type=_percent, help="give it a part of the traffic first")
    add("--canary-for", metavar="SECONDS", type=_seconds, help="for so long (default: 60)")
    add("--gpu", metavar="NAME|SIZE", help="with --plan: for this GPU, as RTX4090 or 24GB, rather than what is here")
    add(
        "--gpu-hour-price",
        metavar="PRICE",
        type=_price,
        help="with --plan: what an hour costs, for the cost of 3 to 5 tries",
    )
    add("--rows", metavar="N", type=_rows, help="with --plan: as if the data had N rows; it need not be there")
    add("--row-tokens", metavar="N", type=positive, help="of each of those rows (default: 512)")
    add("--json", action="store_true", help="events as JSON lines; with --plan and --keys one JSON document")
    return root


if __name__ == "__main__":
    sys.exit(main())
