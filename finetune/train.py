"""`forgegate train RECIPE`: one YAML in, an adapter out. This process starts the training and watches it; it has no torch itself."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.errors import BackendError
from finetune.dataset.errors import DataError
from finetune.errors import TrainError

INTERRUPTED = 130
EXAMPLE = """examples:
  forgegate train recipe.yaml --plan                       what it takes: parameters, memory, time; nothing is started
  forgegate train recipe.yaml --plan --gpu RTX4090 --gpu-hour-price 0.5
  forgegate train recipe.yaml                              train; the adapter is exported into the run's folder
  forgegate train recipe.yaml --on-oom retry --publish support
  forgegate train recipe.yaml --resume                     go on after Ctrl-C, a crash or a reboot
  forgegate train recipe.yaml --set learning_rate=1e-4 --set num_epochs=2 --out runs/second
  forgegate train --keys                                   every key of a recipe: what it does, or why it is refused

Ctrl-C once: a checkpoint, then the end; twice: at once.
exit codes: 0 done, 1 a guard ended the run, 2 bad usage or bad recipe, 3 the environment cannot do it; Ctrl-C 130, SIGTERM 143
"""
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def main(argv: Sequence[str] | None = None, child: Sequence[str] = ()) -> int:
    """`child`: the command of the training process; empty: the one that trains."""
    root = parser()
    args = root.parse_args(argv)
    _require_sense(root, args)
    try:
        return _run(args, child)
    except (TrainError, BackendError, DataError) as exc:
        for line in str(exc).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)
    except BrokenPipeError:
        # `forgegate train --keys | head`: nobody reads any more. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    for name in ("gpu", "gpu_hour_price"):
        if getattr(args, name) is not None and not args.plan:
            root.error(f"--{name.replace('_', '-')} goes with --plan")
    if args.allow_shorter and args.on_oom != "retry":
        root.error("--allow-shorter goes with --on-oom retry")
    if (args.url or args.token) and not args.publish:
        root.error("--url and --token go with --publish NAME")
    if args.plan and (args.publish or args.resume):
        root.error("--plan starts nothing: it takes no --publish and no --resume")


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
    add("--publish", metavar="NAME", help="afterwards publish the adapter to a running gateway, as NAME")
    add("--url", help="admin address of that gateway (default: the one that runs on this machine)")
    add("--token", help="its admin token (default: this machine's own)")
    add("--gpu", metavar="NAME|SIZE", help="with --plan: for this GPU, as RTX4090 or 24GB, rather than what is here")
    add(
        "--gpu-hour-price",
        metavar="PRICE",
        type=_price,
        help="with --plan: what an hour costs, for the cost of 3 to 5 tries",
    )
    add("--json", action="store_true", help="events as JSON lines; with --plan and --keys one JSON document")
    return root


if __name__ == "__main__":
    sys.exit(main())
