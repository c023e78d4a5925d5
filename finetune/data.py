"""`forgegate data doctor | mix | split | show`: the arguments. What they do needs an environment that reads tables; their help does not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from backends.argtypes import positive
from finetune.dataset.errors import DataError, DataLacksPackage

DEFAULT_RATIO = 0.2
EXAMPLE = """examples:
  forgegate data doctor tickets.xlsx --eval held-out.jsonl --max-length 2048
  forgegate data doctor tickets.csv --columns instruction=질문,output=답변 --fix clean.jsonl --mask
  forgegate data split clean.jsonl --train train.jsonl --eval eval.jsonl --eval-share 0.1
  forgegate data mix train.jsonl --general chat.jsonl --ratio 0.15 --out mixed.jsonl
  forgegate data show mixed.jsonl --model demo --rows 3

read are JSON, JSONL, CSV, XLSX and Parquet, in UTF-8, UTF-16, cp949 or a mixture; Alpaca, ShareGPT, ChatML, prompt/completion
exit codes: 0 done, 1 the doctor found errors, 2 bad usage or bad input, 3 the environment cannot do it
"""


def main(argv: Sequence[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if args.action == "doctor" and args.mask and args.fix is None:
        root.error("--mask goes with --fix OUT: the files that are read are never changed")
    try:
        return run_of(args.action)(args)
    except DataError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


def run_of(action: str) -> Callable[[argparse.Namespace], int]:
    """Raises DataLacksPackage."""
    try:
        run: Callable[[argparse.Namespace], int] = getattr(import_module("finetune.dataset.commands"), f"run_{action}")
    except ImportError as exc:
        raise DataLacksPackage(f"forgegate data needs {exc.name}: run `forgegate install trainer`") from exc
    return run


def _columns(text: str) -> Mapping[str, str]:
    """`instruction=질문,output=답변`"""
    pairs = [part.partition("=") for part in text.split(",")]
    known = ("instruction", "input", "output", "prompt", "completion", "messages", "conversations", "system", "text")
    for name, sign, field in pairs:
        if not sign or not field:
            raise argparse.ArgumentTypeError(f"{text!r}: write instruction=FIELD,output=FIELD")
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return {name: field for name, _, field in pairs}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="forgegate data", description="Check, clean, mix, split and show training data.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = root.add_subparsers(dest="action", required=True, metavar="doctor | mix | split | show")
    doctor = _action(actions, "doctor", "find what is wrong with a set, and mend it")
    doctor.add_argument(
        "--eval",
        type=Path,
        action="append",
        metavar="FILE",
        help="an evaluation set: none of its questions may be in the set",
    )
    _token_arguments(doctor)
    doctor.add_argument(
        "--fix",
        type=Path,
        metavar="OUT",
        help="write the cleaned rows as JSONL, and a report beside them (OUT.report.html, OUT.report.json)",
    )
    doctor.add_argument(
        "--mask",
        action="store_true",
        help="with --fix: put a tag such as [PHONE] in place of personal data; without it such rows are left out",
    )
    doctor.add_argument("--report", type=Path, metavar="NAME", help="write NAME.html and NAME.json")
    mixer = _action(actions, "mix", "domain data with general data at a ratio, against forgetting")
    mixer.add_argument(
        "--general",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="general data to draw from; may be repeated",
    )
    mixer.add_argument(
        "--ratio",
        type=float,
        default=DEFAULT_RATIO,
        help=f"share of general rows in the result (default {DEFAULT_RATIO}; 0.1 to 0.2 is usual, up to 0.3 where it forgets)",
    )
    mixer.add_argument("--out", type=Path, required=True, help="JSONL to write")
    splitter = _action(
        actions, "split", "a training and an evaluation set that share no question, near duplicates included"
    )
    splitter.add_argument("--train", type=Path, required=True, metavar="OUT", help="JSONL to write")
    splitter.add_argument("--eval", type=Path, required=True, metavar="OUT", help="JSONL to write")
    splitter.add_argument("--eval-share", type=float, default=0.1, help="share of rows for evaluation (default 0.1)")
    for each in (mixer, splitter):
        each.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")
    shower = _action(actions, "show", "rows as the model sees them, the loss mask in colour")
    _token_arguments(shower, is_required=True)
    shower.add_argument("--rows", type=positive, default=3, metavar="N", help="the first N rows (default 3)")
    shower.add_argument("--row", type=positive, metavar="NUMBER", help="only this row")
    return root


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, words: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name, help=words, description=words, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action.add_argument("files", type=Path, nargs="+", metavar="FILE", help="JSON, JSONL, CSV, XLSX or Parquet")
    action.add_argument(
        "--columns",
        type=_columns,
        default={},
        metavar="NAME=FIELD,...",
        help="which fields of the file are instruction, input, output, ...",
    )
    action.add_argument("--json", action="store_true", help="print JSON")
    return action


def _token_arguments(action: argparse.ArgumentParser, is_required: bool = False) -> None:
    action.add_argument(
        "--model",
        required=is_required,
        metavar="FOLDER",
        help="count tokens and render rows as this model does (`demo` for the demo model); else tokens are estimated",
    )
    action.add_argument(
        "--max-length",
        type=positive,
        metavar="TOKENS",
        help="tokens of a row that training keeps (default 4096, or what the model can read)",
    )


if __name__ == "__main__":
    sys.exit(main())
