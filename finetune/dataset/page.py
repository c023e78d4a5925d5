"""The doctor's report as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

from backends.artifacts import atomic_writer
from finetune.dataset.report import Report

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --error: #c0392b; --warning: #b7791f; --good: #1e8449 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.error { color: var(--error); font-weight: 600 }
.warning { color: var(--warning); font-weight: 600 }
.good { color: var(--good) }
.none { opacity: .55 }
details { margin: .2rem 0 }
code { font-size: 13px; overflow-wrap: anywhere }
h1 { font-size: 1.4rem }
h2 { font-size: 1.1rem }
"""
_HEAD = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    f"<title>Data report</title><style>{_STYLE}</style>"
)


def write_html(report: Report, path: Path) -> None:
    with atomic_writer(path) as file:
        file.write("".join(_page(report)).encode("utf-8", "replace"))


def _page(report: Report) -> Iterator[str]:
    yield _HEAD
    state = "error" if report["num_errors"] else "good"
    yield f"<h1>Data report: <span class={state}>{report['num_errors']:,} errors</span>, {report['num_warnings']:,} warnings</h1>"
    yield "<h2>Files</h2><table><tr><th>file<th>kind<th>encoding<th>rows<th>recognised as"
    for file in report["files"] + report["eval_files"]:
        yield _cells(file["path"], file["kind"], file["encoding"], f"{file['num_rows']:,}", "; ".join(file["evidence"]))
    task = report["task"]
    yield f"</table><p>Task: <b>{task['name']}</b>, {task['counted']:,} {task['unit']}; at least {task['min']:,} are recommended. "
    yield f"{_text(task['note'])}</p>"
    if "cleaned" in report:
        yield from _cleaned_part(report["cleaned"])
    yield "<h2>Checks</h2><table><tr><th>check<th>severity<th>rows<th>what<th>what --fix does"
    for check in report["checks"]:
        yield from _check_part(check)
    yield "</table>"


def _cleaned_part(cleaned: Report) -> Iterator[str]:
    yield f"<h2>Cleaned</h2><p>{_text(cleaned['path'])}: <b>{cleaned['num_written']:,}</b> of {cleaned['num_rows']:,} rows</p>"
    yield "<table><tr><th>what<th>reason<th>count"
    for name in ("rejected", "repaired", "masked"):
        for reason, count in cleaned[name].items():
            yield _cells(name, reason, f"{count:,}")
    yield "</table>"


def _check_part(check: Report) -> Iterator[str]:
    state = check["severity"] if check["count"] else "none"
    yield f"<tr class='{'' if check['count'] else 'none'}'><td>{check['name']}<td class={state}>{check['severity']}"
    yield f"<td class=n>{check['count']:,}<td>{_text(check['of_set'] or check['what'])}"
    if check["examples"]:
        yield f"<details><summary>{len(check['examples'])} examples</summary>"
        for example in check["examples"]:
            yield f"<p>row {example['row']}: {_text(example['why'])}<br><code>{_text(example['text'])}</code></p>"
        yield "</details>"
    yield f"<td>{_text(check['fix'])}"


def _cells(*values: object) -> str:
    return "<tr>" + "".join(f"<td>{_text(value)}" for value in values)


def _text(value: object) -> str:
    return html.escape(str(value))
