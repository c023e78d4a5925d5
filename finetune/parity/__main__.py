"""`forgegate parity`: python -m finetune.parity --url URL --model NAME [--run RUN | --adapter DIR --base DIR] [--data FILE] [--json]"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.argtypes import positive
from backends.errors import BackendError
from finetune.dataset.errors import DataError
from finetune.errors import TrainError
from finetune.export.source import Source, find
from finetune.output import unread
from finetune.parity.heldout import of_file, of_run
from finetune.parity.measure import NUM_ROWS, Order, measure
from finetune.parity.served import Endpoint
from finetune.parity.show import lines
from finetune.parity.tolerance import AUTO, NAMES
from finetune.run.interrupts import terminable
from finetune.running import KEY, TOKEN, URL, endpoint
from finetune.stages import shown

INTERRUPTED = 130
EXAMPLE = f"""Four checks: prompts are rendered to the token ids of training; held-out answers have the log-probabilities that
transformers and PEFT give them; answers end within their budget; greedy answers are equal up to near ties. What fails names its
likely cause.

The key is taken from {TOKEN} (needed for a candidate, NAME@DIGEST), else {KEY}; the gateway that runs here needs none
to be set.

examples:
  forgegate parity --model support --run runs/support
  forgegate parity --url http://gpu-1:8080 --model support@3f2a91c04b7d --adapter support-adapter --base models/Llama-3.1-8B-Instruct \\
      --data held-out.jsonl

exit codes: 0 parity holds, 1 it does not, 2 bad usage or bad input, 3 the environment cannot do it, or the endpoint gives no
log-probabilities, so that it is not checked
"""


def main(argv: Sequence[str] | None = None) -> int:
    made = parser()
    args = made.parse_args(argv)
    if (args.run is None) == (args.adapter is None):
        made.error("name either --run RUN or --adapter DIR")
    if args.run is None and args.data is None:
        made.error("--adapter DIR goes with --data FILE: held-out rows to ask for")
    try:
        with terminable():
            code = parity(args)
        sys.stdout.flush()
        return code
    except (TrainError, DataError, BackendError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return unread()
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)


def parity(args: argparse.Namespace) -> int:
    url, key = endpoint(args.url)
    source = find(args.run or args.adapter, args.base)
    with Endpoint(url, args.model, key) as asked, shown(args.json) as tell:
        verdict = measure(asked, order_of(source, args), tell)
    print(json.dumps(verdict.as_json()) if args.json else "\n".join(lines(verdict)), flush=True)
    return verdict.exit_code


def order_of(source: Source, args: argparse.Namespace) -> Order:
    held_out = of_file(args.data) if args.data else of_run(args.run)
    return Order(source.base, source.adapter, held_out, args.rows, args.weights, args.device)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="forgegate parity", description="Whether an endpoint answers as the trained adapter does.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("--url", default="", help=f"the endpoint (default: {URL}, else the gateway that runs here)")
    made.add_argument(
        "--model", metavar="NAME", required=True, help="an alias, a version NAME@DIGEST, or a merged model"
    )
    made.add_argument("--run", metavar="RUN", type=Path, help="folder of the training run")
    made.add_argument("--adapter", metavar="DIR", type=Path, help="in place of --run: the adapter, in PEFT's format")
    made.add_argument(
        "--base", metavar="DIR", type=Path, help="the full-precision base (default: the one that it was trained on)"
    )
    made.add_argument("--data", metavar="FILE", type=Path, help="held-out rows (default: those that the run held out)")
    made.add_argument("--rows", metavar="N", type=positive, default=NUM_ROWS, help="how many (default %(default)s)")
    made.add_argument(
        "--weights", choices=(AUTO, *NAMES), default=AUTO,
        help="format of the served weights, which says how far they may lie off (default: by what the base shows); needed where it is a "
        "downloaded form of the base, which has a digest of its own",
    )  # fmt: skip
    made.add_argument(
        "--device",
        default="",
        help="where the reference is computed, as torch names it (default: the first card, else the CPU)",
    )
    made.add_argument("--json", action="store_true", help="print progress and verdict as JSON lines")
    return made


if __name__ == "__main__":
    sys.exit(main())
