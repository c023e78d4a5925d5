"""The doctor's report as a dict, which JSON, the page (`page`) and the lines for a terminal are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.artifacts import atomic_writer
from finetune.dataset.checks import CHECKS
from finetune.dataset.doctor import Examination
from finetune.dataset.fix import Cleaned
from finetune.dataset.tasks import CHAT, TASKS

Report = dict[str, Any]


def report_of(found: Examination, cleaned: Cleaned | None = None, out: Path | None = None) -> Report:
    """`checks` has every check, also those that found nothing; its `rows` are numbers from 1 in the order of the files."""
    facts, tokens = found.facts, found.options.tokens
    task = TASKS[facts.task]
    report: Report = {
        "files": [asdict(file) for file in found.loaded.files],
        "eval_files": [asdict(file) for file in found.eval_files.files] if found.eval_files else [],
        "num_records": found.loaded.num_records,
        "num_errors": found.num_errors,
        "num_warnings": found.num_warnings,
        "tokens": "exact" if tokens.is_exact else "estimated",
        "max_length": found.options.max_length,
        "task": {
            "name": facts.task, "rows_by_task": facts.tasks, "num_rows": facts.num_rows, "num_turns": facts.num_turns,
            "counted": facts.num_turns if facts.task == CHAT else facts.num_rows, "unit": task.unit, "min": task.min_rows,
            "ideal": list(task.ideal), "note": task.note,
        },
        "answers": {
            "median_tokens_by_task": facts.median_tokens, "quartiles_tokens": list(facts.tokens_quartiles),
            "list_share": round(facts.list_share, 4), "same_opening_share": round(facts.opening_share, 4),
            "languages": facts.answer_languages,
        },
        "questions": {"languages": facts.languages, "different_share": round(facts.frame_share, 4)},
        "classes": facts.classes,
        "checks": [_check(found, check.name) for check in CHECKS],
    }  # fmt: skip
    if cleaned is not None:
        report["cleaned"] = {
            "path": str(out), "num_rows": cleaned.num_rows, "num_written": cleaned.num_written,
            "rejected": dict(cleaned.rejected.most_common()), "repaired": dict(+cleaned.repaired), "masked": dict(cleaned.masked),
        }  # fmt: skip
    return report


def _check(found: Examination, name: str) -> Report:
    findings = found.findings[name]
    check = findings.check
    related = [[row, other] for row, other in zip(findings.rows, findings.others, strict=True) if other]
    return {
        "name": name, "severity": check.severity.value, "what": check.what, "fix": check.fix.value, "count": findings.count,
        "of_set": findings.of_set or None, "rows": list(findings.rows), "related": related,
        "examples": [asdict(example) for example in findings.examples],
    }  # fmt: skip


def write_json(report: Report, path: Path) -> None:
    with atomic_writer(path) as file:
        file.write((json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"))


def lines(report: Report) -> Iterator[str]:
    """For a terminal."""
    for file in report["files"] + report["eval_files"]:
        encoding = f", {file['encoding']}" if file["encoding"] else ""
        yield f"{file['path']}: {file['kind']}{encoding}, {file['num_rows']:,} rows"
        yield from (f"  {evidence}" for evidence in file["evidence"])
    task = report["task"]
    counted = f"{task['counted']:,} {task['unit']} (at least {task['min']:,})"
    yield f"task: {task['name']}, {counted}; tokens {report['tokens']}, max_length {report['max_length']}"
    yield ""
    for check in report["checks"]:
        if check["count"]:
            yield f"{check['severity']:<8} {check['name']:<15} {check['count']:>7,}  {check['of_set'] or check['what']}"
            for example in check["examples"][:2]:
                yield f"{'':<33} row {example['row']}: {example['why']}"
    yield f"{report['num_errors']:,} errors, {report['num_warnings']:,} warnings"
    if "cleaned" in report:
        yield from _cleaned_lines(report["cleaned"])


def _cleaned_lines(cleaned: Report) -> Iterator[str]:
    share = cleaned["num_written"] / max(1, cleaned["num_rows"])
    yield ""
    yield f"{cleaned['path']}: {cleaned['num_written']:,} of {cleaned['num_rows']:,} rows ({share:.1%})"
    for name in ("rejected", "repaired", "masked"):
        if cleaned[name]:
            yield f"{name}: " + ", ".join(f"{reason} {count:,}" for reason, count in cleaned[name].items())
