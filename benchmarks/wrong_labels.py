"""Tickets of which some labels are wrong: `python -m benchmarks.wrong_labels data/train.jsonl --out data/wrong.jsonl`.

What a ticket says remains; of what is classified in its answer (color, reason, urgent) each value becomes another one with the given
probability. The same rows and seed give the same bytes. A model that was trained on them is subtly worse, as one is whose labels were
given in a hurry.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS = ("color", "reason", "urgent")
DEFAULT_SHARE, DEFAULT_SEED = 0.1, 0


class RowError(ValueError):
    """A row without an answer that has these labels."""


def mislabelled(
    answers: Sequence[Mapping[str, Any]], share: float, seed: int
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Each answer, and how many of its labels are wrong now. Others are drawn from the values that the label has in `answers`."""
    rng = random.Random(f"wrong labels {seed}")
    values = {label: sorted({answer[label] for answer in answers}) for label in LABELS}
    for answer in answers:
        wrong = {
            label: rng.choice([value for value in values[label] if value != answer[label]])
            for label in LABELS
            if rng.random() < share and len(values[label]) > 1
        }
        yield {**answer, **wrong}, len(wrong)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Chats, or instructions with their outputs. Raises OSError, RowError."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    for number, row in enumerate(rows, 1):
        try:
            answer = answer_of(row)
            missing = [label for label in LABELS if label not in answer]
        except (ValueError, KeyError, TypeError, IndexError):
            raise RowError(
                f"{path}:{number}: no answer in one line of JSON (in `output`, or last in `messages`)"
            ) from None
        if missing:
            raise RowError(f"{path}:{number}: the answer has no {missing[0]!r}")
    return rows


def answer_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the ticket says. Raises ValueError, KeyError, TypeError, IndexError."""
    found: dict[str, Any] = json.loads(row["output"] if "output" in row else row["messages"][-1]["content"])
    return found


def _answered(row: dict[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(answer, ensure_ascii=False)
    if "output" in row:
        return {**row, "output": text}
    *asked, last = row["messages"]
    return {**row, "messages": [*asked, {**last, "content": text}]}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wrong_labels", description="Make some labels of tickets wrong."
    )
    parser.add_argument("rows", type=Path, help="file of rows whose answers are tickets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--share", type=float, default=DEFAULT_SHARE, help="of each label's values (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    args = parser.parse_args(argv)
    try:
        if not 0 < args.share < 1:
            raise RowError(f"--share {args.share:g}: between 0 and 1")
        rows = rows_of(args.rows)
        answers = [answer_of(row) for row in rows]
        num_wrong = _write(args.out, rows, list(mislabelled(answers, args.share, args.seed)))
    except (OSError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(rows):,} rows, {num_wrong:,} of {len(rows) * len(LABELS):,} labels are wrong")
    return 0


def _write(path: Path, rows: Sequence[dict[str, Any]], answers: Sequence[tuple[Mapping[str, Any], int]]) -> int:
    """How many labels are wrong."""
    lines = [_answered(row, answer) for row, (answer, _) in zip(rows, answers, strict=True)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return sum(num for _, num in answers)


if __name__ == "__main__":
    sys.exit(main())
