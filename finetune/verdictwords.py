"""A verdict for people: who against whom, a line for each skill, why, and what to change after a NO-GO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.gating.verdict import Judged, Verdict

HEADS = ("task or skill", "items", "live", "candidate", "difference", "bounds", "")


def heading(document: Mapping[str, Any]) -> str:
    """One line."""
    return f"{document['candidate']} in place of {live_words(document)}, rule {document['rule']}: {document['outcome']}"


def live_words(document: Mapping[str, Any]) -> str:
    shares: Sequence[Mapping[str, Any]] = document["live"]
    if not shares:
        return f"the base {document['base']}"
    if len(shares) == 1:
        return str(shares[0]["adapter"])
    total = sum(share["weight"] for share in shares)
    return " and ".join(f"{share['adapter']} ({share['weight'] / total:.0%})" for share in shares)


def lines(document: Mapping[str, Any], verdict: Verdict) -> Iterator[str]:
    yield heading(document)
    yield from table(verdict)
    for reason in verdict.reasons:
        yield f"  {reason}"
    if verdict.items_to_settle is not None:
        yield f"  to settle it: about {verdict.items_to_settle:,} items of each undecided one (--max-items, or more rows held out)"


def table(verdict: Verdict) -> Iterator[str]:
    """The task first; in columns."""
    rows = [HEADS, *map(_row, (verdict.task, *verdict.general))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *numbers, state = row
        cells = [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)),
            state,
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _row(one: Judged) -> tuple[str, ...]:
    return (
        one.name, f"{one.num_items:,}", f"{one.live:.1%}", f"{one.candidate:.1%}", f"{one.difference:+.1f}",
        f"{one.lower:+.1f} to {one.upper:+.1f}", one.state,
    )  # fmt: skip
