"""HTML from data: every text escaped, in its own direction."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from finetune.pages.assets import THEME, text_of


def text(value: object) -> str:
    return html.escape(str(value))


def head(title: str, style: str) -> str:
    """Of a page that needs no other file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{text_of(THEME)}{style}</style></head><body>"
    )


TAIL = "</body></html>\n"


def table(
    caption: str, names: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()
) -> Iterator[str]:
    """`rows` are HTML, their first cells head them; `numbers` are the columns that stand to the right.

    On a narrow screen each row is a list of its cells, so that what is a table is said by roles too.
    """
    yield f'<table role="table"><caption>{text(caption)}</caption><thead role="rowgroup"><tr role="row">'
    for place, name in enumerate(names):
        yield f'<th scope="col" role="columnheader"{_right(place, numbers)}>{text(name)}</th>'
    yield '</tr></thead><tbody role="rowgroup">'
    for row in rows:
        yield '<tr role="row">'
        for place, cell in enumerate(row):
            if place == 0:
                yield f'<th scope="row" role="rowheader">{cell}</th>'
            else:
                yield f'<td role="cell" data-name="{text(names[place])}"{_right(place, numbers)}>{cell}</td>'
        yield "</tr>"
    yield "</tbody></table>"


def _right(place: int, numbers: frozenset[int]) -> str:
    return ' class="n"' if place in numbers else ""


def name(value: object) -> str:
    """A name that must not turn the words around it."""
    return f"<bdi>{text(value)}</bdi>"


def block(value: str, limit: int = 0) -> str:
    """A text as it was written; of a longer one than `limit` its beginning."""
    if not value.strip():
        return f'<div class="soft">{"(blank)" if value else "(empty)"}</div>'
    cut = value[:limit] if limit and len(value) > limit else value
    rest = f'<div class="soft">{len(value) - len(cut):,} characters more</div>' if cut != value else ""
    return f'<div class="text" dir="auto">{text(cut)}</div>{rest}'
