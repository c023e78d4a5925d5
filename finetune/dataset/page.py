"""The doctor's report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.artifacts import atomic_writer
from finetune.dataset.report import Report
from finetune.pages.markup import TAIL, head, name, table, text

_STYLE = """
.example { margin: .5rem 0 }
.example code { white-space: pre-wrap; unicode-bidi: plaintext }
details[open] > summary { margin-bottom: .3rem }
@media (max-width: 640px) { tbody td:has(details) { display: block; text-align: left } tbody td:has(details)::before { display: block } }
"""


def write_html(report: Report, path: Path) -> None:
    with atomic_writer(path) as file:
        file.write("".join(_page(report)).encode("utf-8", "replace"))


def _page(report: Report) -> Iterator[str]:
    yield head("Data report", _STYLE)
    state = "error" if report["num_errors"] else "good"
    yield f"<main><h1>Data report: <span class={state}>{_count(report['num_errors'], 'error')}</span>, "
    yield f"{_count(report['num_warnings'], 'warning')}</h1>"
    files = [
        (name(file["path"]), text(file["kind"]), text(file["encoding"]), f"{file['num_rows']:,}", text("; ".join(file["evidence"])))
        for file in report["files"] + report["eval_files"]
    ]  # fmt: skip
    yield from table("Files", ("file", "kind", "encoding", "rows", "recognised as"), files, frozenset({3}))
    task = report["task"]
    yield f"<p>Task: <b>{text(task['name'])}</b>, {task['counted']:,} {text(task['unit'])}; at least {task['min']:,} are recommended. "
    yield f"{text(task['note'])}</p>"
    if "cleaned" in report:
        yield from _cleaned_part(report["cleaned"])
    yield "<h2>Checks</h2>"
    found = [check for check in report["checks"] if check["count"]]
    others = [check for check in report["checks"] if not check["count"]]
    heads = ("check", "severity", "rows", "what", "what --fix does")
    if found:
        yield from table("What was found", heads, map(_cells, found), frozenset({2}))
    if others:
        yield f"<details><summary>{_count(len(others), 'check')} found nothing</summary>"
        yield from table("Checks that found nothing", heads, map(_cells, others), frozenset({2}))
        yield "</details>"
    yield f"</main>{TAIL}"


def _cleaned_part(cleaned: Report) -> Iterator[str]:
    yield f"<h2>Cleaned</h2><p>{name(cleaned['path'])}: <b>{cleaned['num_written']:,}</b> of {cleaned['num_rows']:,} rows</p>"
    rows = [
        (text(what), text(reason), f"{count:,}")
        for what in ("rejected", "repaired", "masked") for reason, count in cleaned[what].items()
    ]  # fmt: skip
    if rows:
        yield from table(
            "What became of the others, and what was changed", ("what", "reason", "count"), rows, frozenset({2})
        )


def _cells(check: Report) -> tuple[str, ...]:
    severity = text(check["severity"])
    style = f"{severity} strong" if check["count"] else "soft"
    what = "".join((text(check["of_set"] or check["what"]), *_examples(check)))
    return (
        text(check["name"]),
        f"<span class='{style}'>{severity}</span>",
        f"{check['count']:,}",
        f"<div>{what}</div>",
        text(check["fix"]),
    )


def _examples(check: Report) -> Iterator[str]:
    if check["examples"]:
        yield f"<details><summary>{_count(len(check['examples']), 'example')}</summary>"
        for example in check["examples"]:
            yield f'<div class="example">row {example["row"]}: {text(example["why"])}'
            yield f'<br><code dir="auto">{text(example["text"])}</code></div>'
        yield "</details>"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
