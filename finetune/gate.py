"""`forgegate gate`: whether a candidate may take the place of what an alias serves, by paired scores; the verdict goes to the gateway."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from backends.argtypes import positive
from backends.errors import BackendError
from finetune.dataset.errors import DataError
from finetune.errors import LacksPackage, TrainError
from finetune.output import unread
from finetune.run.interrupts import terminable
from finetune.running import TOKEN, URL

INTERRUPTED = 130
EXAMPLE = f"""What the alias serves now (the base where it serves nothing) and the candidate are asked the same items; the task has to be
better, no general skill may drop. 500 items of each are asked, then up to --max-items of those that are undecided; what was answered
before by the same engines is not asked again. The verdict goes to the gateway, where it allows just this change:
forgegate adapters alias NAME VERSION.

The admin token is taken from {TOKEN}; the gateway that runs here needs none to be set.

examples:
  forgegate gate --alias support --candidate support@3f2a91c04b7d --suite suite.yaml
  forgegate gate --alias support --candidate support@3f2a91c04b7d --run outputs/support --rule non-inferior --out verdicts/monday
  forgegate gate evaluation.json --live demo --candidate support@3f2a91c04b7d     what `forgegate evaluate --out DIR` left

exit codes: 0 GO, 1 NO-GO or INCONCLUSIVE, 2 bad usage or bad input, 3 the environment cannot do it
"""


def main(argv: Sequence[str] | None = None) -> int:
    made = parser()
    args = made.parse_args(argv)
    _require_sense(made, args)
    try:
        with terminable():
            code = run_of()(args)
        sys.stdout.flush()
        return code
    except (TrainError, DataError, BackendError) as exc:
        for line in str(exc).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return unread()
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)


def run_of() -> Callable[[argparse.Namespace], int]:
    """What the command does: its help needs none of that. Raises LacksPackage."""
    try:
        from finetune.gatecommand import run
    except ModuleNotFoundError as exc:
        raise LacksPackage(f"forgegate gate needs {exc.name}: run `forgegate install trainer`") from exc
    return run


def _require_sense(made: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.result is not None:
        if not args.live:
            made.error("RESULT goes with --live MODEL, one of the models that were asked")
        for name in ("alias", "suite"):
            if getattr(args, name) is not None:
                made.error(f"--{name} asks anew, RESULT was asked before: keep one of them")
        return
    if args.alias is None:
        made.error("which alias? --alias NAME; or name what `forgegate evaluate --out DIR` left: forgegate gate RESULT")
    if args.live:
        made.error("--live goes with RESULT: of an alias, what it serves now is live")
    if args.suite is None and args.run is None:
        made.error(
            "which suite? --suite FILE, or --run RUN: what that training run held out, and the demo model's skills on it"
        )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="forgegate gate", description="Whether a candidate may take the place of what an alias serves.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = made.add_argument
    add("result", metavar="RESULT", type=Path, nargs="?", help="an evaluation that was saved; nothing is asked")
    add("--alias", metavar="NAME", help="whose place it would take; the base's where there is no such alias yet")
    add("--candidate", metavar="VERSION", required=True, help="NAME@DIGEST; with RESULT any of its models")
    add("--live", metavar="MODEL", default="", help="with RESULT: the one that is live")
    add("--suite", metavar="FILE", type=Path, help="task, general skills and limits, as YAML")
    add("--run", metavar="RUN", type=Path,
        help="folder of the training run: its held-out rows for want of a suite, its recipe for what to change after NO-GO")  # fmt: skip
    add(
        "--rule",
        choices=("improve", "non-inferior"),
        help="improve: the task has to be better; non-inferior: not worse, for retrains (default: the suite's)",
    )
    add(
        "--max-items",
        metavar="N",
        type=positive,
        help="of each task at most (default: 4000)",
    )
    add(
        "--out",
        metavar="DIR",
        type=Path,
        help="keep answers and verdict there",
    )
    add(
        "--post",
        action=argparse.BooleanOptionalAction,
        help="tell the gateway the verdict (default: yes, with RESULT no)",
    )
    add("--url", default="", help=f"where clients ask (default: {URL}, else the gateway that runs here)")
    add("--admin-url", help="admin address of that gateway (default: the one that runs here)")
    add("--json", action="store_true", help="print progress and verdict as JSON lines")
    return made


if __name__ == "__main__":
    sys.exit(main())
