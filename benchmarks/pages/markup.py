"""HTML from data: every text escaped, one style for all pages, light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.pages import chart

STYLE = """
:root { color-scheme: light dark;
  --page: #fff; --ink: #1d2126; --soft: #5d6670; --line: #dfe3e8; --fill: #f3f5f7; --bad: #c0392b; --bad-fill: #fbeae8; --good: #1e7d43;
  --good-fill: #e7f5ec; --s0: #1f6feb; --s1: #d9480f; --s2: #2b8a3e; --s3: #9c36b5; --s4: #b08800; --s5: #087f8c }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --ink: #e6e9ec; --soft: #9aa4ae; --line: #30363d; --fill: #1d2227; --bad: #ff7b72; --bad-fill: #3a1d1b; --good: #56d364;
  --good-fill: #16301f; --s0: #6cb0ff; --s1: #ff9d5c; --s2: #6fd184; --s3: #d99cf0; --s4: #e3c04d; --s5: #4dd0e1 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.2rem; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
.soft { color: var(--soft) }
.banner { border-left: .4rem solid; border-radius: .5rem; padding: .7rem 1rem; margin: 1rem 0; overflow-wrap: anywhere }
.banner.good { border-color: var(--good); background: var(--good-fill) }
.banner.bad { border-color: var(--bad); background: var(--bad-fill) }
.banner p, .banner ul { margin: .2rem 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left }
thead th { color: var(--soft); font-weight: 600 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.8rem 2.4rem; margin: 1rem 0 }
pre { background: var(--fill); padding: .7rem; border-radius: .4rem; overflow-x: auto; font-size: .82rem }
"""


def text(value: object) -> str:
    """Escaped."""
    return html.escape(str(value))


def page(title: str, body: Iterable[str]) -> str:
    """A whole page that needs no other file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{STYLE}{chart.STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def banner(is_good: bool, title: str, lines: Sequence[str]) -> Iterator[str]:
    """What must be read first."""
    yield f'<div class="banner {"good" if is_good else "bad"}" role="status"><p><strong>{text(title)}</strong></p>'
    if lines:
        yield f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"
    yield "</div>"


def table(caption: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The first cell of a row heads it; it scrolls within a narrow page."""
    yield f'<div class="wide"><table><caption>{text(caption)}</caption><thead><tr>'
    yield "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    yield "</tr></thead><tbody>"
    for head, *cells in rows:
        yield f'<tr><th scope="row">{text(head)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
    yield "</tbody></table></div>"


def folded(title: str, value: str) -> str:
    """A long text that is opened by whoever wants it."""
    return f"<details><summary>{text(title)}</summary><pre>{text(value)}</pre></details>"
