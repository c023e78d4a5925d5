"""`forgegate data doctor | mix | split | show`: runs in an environment that reads tables and counts tokens."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from backends.demo import TARGET_DIR
from finetune.dataset.doctor import Options, examine
from finetune.dataset.errors import DataError, DataUnusable
from finetune.dataset.fix import refuse_input, write_clean
from finetune.dataset.formats import Columns
from finetune.dataset.loading import load
from finetune.dataset.mix import RATIOS, mix
from finetune.dataset.page import write_html
from finetune.dataset.progress import watch
from finetune.dataset.report import lines, report_of, write_json
from finetune.dataset.row import Row
from finetune.dataset.show import coloured, marked, summary, view_of
from finetune.dataset.split import split
from finetune.dataset.spool import Spool
from finetune.dataset.tokens import Estimate, ModelTokens, Tokens

DONE, NEGATIVE = 0, 1
DEFAULT_MAX_LENGTH = 4096
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
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except DataError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return code


def _doctor(args: argparse.Namespace) -> int:
    tokens, max_length = _tokens(args)
    options = Options(tokens, max_length, args.columns, tuple(args.eval or ()))
    with Spool() as spool, watch() as bars:
        found = examine(args.files, spool, options, bars)
        cleaned = None
        if args.fix is not None:
            cleaned = write_clean(found, args.fix, args.mask, bars)
        report = report_of(found, cleaned, args.fix)
        for path in _report_paths(args):
            refuse_input(path, found)
            (write_html if path.suffix == ".html" else write_json)(report, path)
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print("\n".join(lines(report)))
        print("".join(f"report: {path}\n" for path in _report_paths(args)), end="")
    return NEGATIVE if report["num_errors"] else DONE


def _report_paths(args: argparse.Namespace) -> list[Path]:
    """Beside the cleaned file, or where `--report` says."""
    base: Path | None = args.report or args.fix
    return (
        []
        if base is None
        else [
            base.with_suffix(f".report{ending}") if args.report is None else base.with_suffix(ending)
            for ending in (".html", ".json")
        ]
    )


def _split(args: argparse.Namespace) -> int:
    with watch() as bars:
        parts = split(args.files, args.train, args.eval, args.eval_share, args.seed, args.columns, bars)
    if args.json:
        print(
            json.dumps(
                {
                    "train": parts.num_train,
                    "eval": parts.num_eval,
                    "clusters": parts.num_clusters,
                    "skipped": parts.num_skipped,
                }
            )
        )
    else:
        print(
            f"{args.train}: {parts.num_train:,} rows; {args.eval}: {parts.num_eval:,} rows; "
            f"{parts.num_clusters:,} clusters of near duplicates kept whole"
        )
    _say_skipped(parts.num_skipped)
    return DONE


def _mix(args: argparse.Namespace) -> int:
    with watch() as bars:
        mixture = mix(args.files, args.general, args.out, args.ratio, args.seed, args.columns, bars)
    if args.json:
        print(
            json.dumps(
                {
                    "domain": mixture.num_domain,
                    "general": mixture.num_general,
                    "ratio": mixture.ratio,
                    "skipped": mixture.num_skipped,
                }
            )
        )
    else:
        print(
            f"{args.out}: {mixture.num_domain:,} domain rows and {mixture.num_general:,} of {mixture.num_general_there:,} general ones, "
            f"{mixture.ratio:.1%} of the whole"
        )
    _say_skipped(mixture.num_skipped)
    return DONE


def _say_skipped(count: int) -> None:
    if count:
        print(
            f"warning: {count} records are no rows and were left out: forgegate data doctor says why", file=sys.stderr
        )


def _show(args: argparse.Namespace) -> int:
    tokens, max_length = _tokens(args)
    assert isinstance(tokens, ModelTokens)
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    with Spool() as spool, watch() as bars:
        _, rows = load(args.files, spool, args.columns, bars)
        for row in _chosen(rows, args):
            view = view_of(row, tokens, max_length)
            shown += 1
            if args.json:
                ids = list(view.rendered.ids)
                print(
                    json.dumps(
                        {
                            "row": row.number,
                            "ids": ids,
                            "trained": [int(flag) for flag in view.rendered.is_trained],
                            "kept": view.num_kept,
                        }
                    )
                )
                continue
            console.print(f"--- {summary(view)}", markup=False)
            if console.is_terminal and not console.no_color:
                console.print(coloured(view))
            else:
                print(marked(view))
    if not shown:
        raise DataUnusable(f"there is no row {args.row}" if args.row else "there are no rows")
    return DONE


def _chosen(rows: Iterator[Row], args: argparse.Namespace) -> Iterator[Row]:
    if args.row is not None:
        return islice((row for row in rows if row.number == args.row), 1)
    return islice(rows, args.rows)


def _tokens(args: argparse.Namespace) -> tuple[Tokens, int]:
    """The model's own, and what of a row is kept: as asked, else 4,096 or what the model can read. Raises DataError."""
    if args.model is None:
        return Estimate(), args.max_length or DEFAULT_MAX_LENGTH
    tokens = ModelTokens(TARGET_DIR if args.model == "demo" else Path(args.model).expanduser())
    context = tokens.max_context or DEFAULT_MAX_LENGTH
    if args.max_length is not None and tokens.max_context is not None and args.max_length > tokens.max_context:
        raise DataUnusable(f"--max-length {args.max_length}: the model reads {tokens.max_context} tokens at most")
    return tokens, args.max_length or min(DEFAULT_MAX_LENGTH, context)


def _columns(text: str) -> Mapping[str, str]:
    """`instruction=질문,output=답변`"""
    pairs = [part.partition("=") for part in text.split(",")]
    known = ("instruction", "input", "output", "prompt", "completion", "messages", "conversations", "system", "text")
    for name, sign, field in pairs:
        if not sign or not field:
            raise argparse.ArgumentTypeError(f"{text!r}: write instruction=FIELD,output=FIELD")
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return Columns({name: field for name, _, field in pairs}).names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="forgegate data", description="Check, clean, mix, split and show training data.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = root.add_subparsers(dest="action", required=True, metavar="doctor | mix | split | show")
    doctor = _action(actions, "doctor", _doctor, "find what is wrong with a set, and mend it")
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
    mixer = _action(actions, "mix", _mix, "domain data with general data at a ratio, against forgetting")
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
        default=RATIOS[1],
        help=f"share of general rows in the result (default {RATIOS[1]}; {RATIOS[0]} to {RATIOS[1]} is usual)",
    )
    mixer.add_argument("--out", type=Path, required=True, help="JSONL to write")
    splitter = _action(
        actions, "split", _split, "a training and an evaluation set that share no question, near duplicates included"
    )
    splitter.add_argument("--train", type=Path, required=True, metavar="OUT", help="JSONL to write")
    splitter.add_argument("--eval", type=Path, required=True, metavar="OUT", help="JSONL to write")
    splitter.add_argument("--eval-share", type=float, default=0.1, help="share of rows for evaluation (default 0.1)")
    for each in (mixer, splitter):
        each.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")
    shower = _action(actions, "show", _show, "rows as the model sees them, the loss mask in colour")
    _token_arguments(shower, is_required=True)
    shower.add_argument("--rows", type=_positive, default=3, metavar="N", help="the first N rows (default 3)")
    shower.add_argument("--row", type=_positive, metavar="NUMBER", help="only this row")
    return root


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: object, words: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name, help=words, description=words, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action.set_defaults(run=run)
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
        type=_positive,
        metavar="TOKENS",
        help="tokens of a row that training keeps (default 4096, or what the model can read)",
    )


if __name__ == "__main__":
    sys.exit(main())
