"""`forgegate data review`: rows of a file kept, edited or dropped one by one, on a page of this machine."""

from __future__ import annotations

import argparse
import json
import sys
import webbrowser
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from finetune.dataset.errors import DataUnusable
from finetune.dataset.fix import refuse_inputs
from finetune.dataset.progress import watch
from finetune.dataset.spool import Spool
from finetune.pages.journal import Journal, content_digest
from finetune.pages.review import FORMAT, Review
from finetune.pages.rows import Rows
from finetune.pages.server import PageServer

WRITTEN, UNFINISHED = 0, 1
JOURNAL = ".review"
"""What the journal is called after the file that is written."""


def run_review(args: argparse.Namespace) -> int:
    """0 where the rows that are kept were written, 1 where it ended before. Raises DataError, OSError."""
    if len(args.files) > 1:
        raise DataUnusable("one file is reviewed at a time: `forgegate data mix` makes one of several")
    (path,) = args.files
    journal_path = args.out.with_name(args.out.name + JOURNAL)
    refuse_inputs(args.out, [path])
    if args.out.exists() and not journal_path.exists():
        raise DataUnusable(f"{args.out} is there, and no review wrote it: name another file, or move it away")
    with Spool() as spool:
        with watch() as bars:
            rows = Rows(path, args.columns, spool, bars)
        with Journal(journal_path, head_of(path, args.columns), ("content", "columns")) as journal:
            review = Review(rows, journal, args.out, args.flagged)
            serve(review, args)
            print(json.dumps(review.summary()) if args.json else "\n".join(lines(review, journal_path)))
            return UNFINISHED if review.num_written is None else WRITTEN


def serve(review: Review, args: argparse.Namespace) -> None:
    """Until the page or Ctrl-C ends it."""
    server = PageServer(review, args.port)
    print(f"review at {server.url}\nCtrl-C ends it; what was decided is kept", file=sys.stderr, flush=True)
    if args.open:
        webbrowser.open(server.url)
    try:
        server.run()
    except KeyboardInterrupt as exc:
        if getattr(exc, "exit_code", None) is not None:
            raise
        print(file=sys.stderr)


def head_of(path: Path, columns: Mapping[str, str]) -> dict[str, object]:
    return {
        "format": FORMAT, "format_version": 1, "file": path.name, "content": content_digest(path), "columns": dict(columns),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def lines(review: Review, journal: Path) -> list[str]:
    """For a terminal."""
    found = review.summary()
    told = (
        f"{found['total']:,} rows reviewed: {found['kept']:,} kept, {found['edited']:,} edited, {found['dropped']:,} dropped, "
        f"{found['open']:,} undecided"
    )
    if review.num_written is None:
        return [told, f"{review.out} is not written yet: run the same command to go on (decisions are in {journal})"]
    return [told, f"{review.out}: {review.num_written:,} rows"]
