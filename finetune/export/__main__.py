"""`forgegate export`: python -m finetune.export RUN|ADAPTER --out DIR [--base DIR] [--merged] [--json]"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.errors import BackendError
from backends.plan import size_words
from finetune.errors import TrainError
from finetune.export.adapter import Exported, export_adapter
from finetune.export.merged import Merged, export_merged
from finetune.export.source import find
from finetune.output import unread
from finetune.run.interrupts import terminable
from finetune.stages import shown

INTERRUPTED = 130
EXAMPLE = """An adapter is written in the canonical form: its scale in the weights, a manifest that names it by its content, and references,
the log-probabilities that an engine must serve it with. `forgegate adapters publish DIR --name NAME` sends it.
A merged model is a whole model folder in the base's own precision, verified against base and adapter before it is there.

examples:
  forgegate export runs/support --out support-adapter
  forgegate export runs/support --merged --out support-model
  forgegate export my-lora --base models/Llama-3.1-8B-Instruct --out my-lora-canonical
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        with terminable():
            code = export(args)
        sys.stdout.flush()
        return code
    except (TrainError, BackendError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return unread()
    except OSError as exc:
        print(f"error: {exc.filename or args.out}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)


def export(args: argparse.Namespace) -> int:
    source = find(args.source, args.base)
    make = export_merged if args.merged else export_adapter
    with shown(args.json) as tell:
        done: Exported | Merged = make(source, args.out, tell, args.device)
    if args.json:
        print(json.dumps({"event": "exported", **done.as_json()}), flush=True)
    else:
        print(_words(done))
    return 0


def _words(done: Exported | Merged) -> str:
    again = "" if done.is_new else " (already there)"
    if isinstance(done, Exported):
        return (
            f"{done.folder}: version {done.digest[:12]}, rank {done.rank}, {done.num_parameters:,} parameters, "
            f"{size_words(done.size_bytes)}, references of {done.num_tokens:,} tokens{again}"
        )
    return (
        f"{done.folder}: {done.num_tensors} matrices merged in {', '.join(done.dtypes)}, {size_words(done.size_bytes)}; differs from base "
        f"and adapter by {done.difference:.4f} nat (rounding explains {done.limit:.4f}, the adapter changes {done.effect:.4f}){again}"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="forgegate export", description="Export what was trained: the adapter, or a model with it merged in.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument(
        "source", metavar="RUN|ADAPTER", type=Path, help="a run's folder, or an adapter's in PEFT's format"
    )
    made.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write; whole or not at all")
    made.add_argument(
        "--base", metavar="DIR", type=Path, help="the full-precision base (default: the one that it was trained on)"
    )
    made.add_argument("--merged", action="store_true", help="write a model with the adapter merged into it")
    made.add_argument(
        "--device",
        default="",
        help="where references are computed, as torch names it (default: the first card, else the CPU)",
    )
    made.add_argument("--json", action="store_true", help="print progress and result as JSON lines")
    return made


if __name__ == "__main__":
    sys.exit(main())
