"""What `forgegate data` does: one function for each action, from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rich.console import Console

from backends.demo import TARGET_DIR
from finetune.dataset.doctor import Options, examine
from finetune.dataset.errors import DataUnusable
from finetune.dataset.fix import refuse_inputs, write_clean
from finetune.dataset.loading import load
from finetune.dataset.mix import mix
from finetune.dataset.page import write_html
from finetune.dataset.progress import Unwatched, watch
from finetune.dataset.report import lines, report_of, write_json
from finetune.dataset.row import Row
from finetune.dataset.show import coloured, marked, summary, view_of
from finetune.dataset.split import split
from finetune.dataset.spool import Spool
from finetune.dataset.tokens import Estimate, ModelTokens, Tokens
from finetune.recipe.base import DEMO, find_base
from finetune.recipe.folders import Folders, home_of
from finetune.recipe.values import Unfit

DONE, NEGATIVE = 0, 1
DEFAULT_MAX_LENGTH = 4096
"""The article's `sequence_len`."""


def run_doctor(args: argparse.Namespace) -> int:
    _refuse_outputs(args)
    tokens, max_length = _tokens(args)
    options = Options(tokens, max_length, args.columns, tuple(args.eval or ()))
    with Spool() as spool, watch() as bars:
        found = examine(args.files, spool, options, bars)
        cleaned = None
        if args.fix is not None:
            cleaned = write_clean(found, args.fix, args.mask, bars)
        report = report_of(found, cleaned, args.fix)
        for path in _report_paths(args):
            (write_html if path.suffix == ".html" else write_json)(report, path)
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print("\n".join(lines(report)))
        print("".join(f"report: {path}\n" for path in _report_paths(args)), end="")
    return NEGATIVE if report["num_errors"] else DONE


def _refuse_outputs(args: argparse.Namespace) -> None:
    """Before anything is read. Raises DataUnusable."""
    inputs = [*args.files, *(args.eval or ())]
    for given in (args.fix, args.report):
        if given is not None:
            refuse_inputs(given, inputs)
    for path in _report_paths(args):
        refuse_inputs(path, inputs)


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


def run_split(args: argparse.Namespace) -> int:
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


def run_mix(args: argparse.Namespace) -> int:
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


def run_show(args: argparse.Namespace) -> int:
    tokens, max_length = _tokens(args)
    assert isinstance(tokens, ModelTokens)
    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    with Spool() as spool:
        _, rows = load(args.files, spool, args.columns, Unwatched())
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
            if console.is_terminal and not console.no_color:
                console.print(f"--- {summary(view)}", coloured(view), sep="\n", markup=False)
            else:
                print(f"--- {summary(view)}", marked(view), sep="\n")
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
    tokens = ModelTokens(_model_folder(args.model))
    context = tokens.max_context or DEFAULT_MAX_LENGTH
    if args.max_length is not None and tokens.max_context is not None and args.max_length > tokens.max_context:
        raise DataUnusable(f"--max-length {args.max_length}: the model reads {tokens.max_context} tokens at most")
    return tokens, args.max_length or min(DEFAULT_MAX_LENGTH, context)


def _model_folder(name: str) -> Path:
    """A folder, `demo`, or what was pulled from a hub. Raises DataUnusable."""
    folder = TARGET_DIR if name == DEMO else Path(name).expanduser()
    if folder.is_dir():
        return folder
    try:
        return find_base(name, "", Folders(Path.cwd(), Path.cwd(), home_of()), needs_weights=True).folder
    except Unfit as exc:
        raise DataUnusable(f"--model {name}: {exc}") from exc
