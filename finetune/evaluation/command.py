"""What `forgegate evaluate` does with its arguments."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path
from finetune.errors import RecipeUnusable
from finetune.evaluation import judge, show
from finetune.evaluation.compare import compared
from finetune.evaluation.defaults import JUDGE_KEY
from finetune.evaluation.judge import Judge
from finetune.evaluation.result import PAGE, RESULT, TABLE, Evaluation, write
from finetune.evaluation.run import CACHE, Endpoint, evaluate
from finetune.evaluation.suite import Suite, load, of_run
from finetune.pages import report
from finetune.recipe.document import read_text
from finetune.running import endpoint
from finetune.stages import shown


def run(args: argparse.Namespace) -> int:
    suite = suite_of(args)
    url, key = endpoint(args.url)
    where = Endpoint(url, args.token or key, args.at_a_time)
    with shown(args.json) as tell:
        found = evaluate(suite, where, args.models, args.items, tell, args.out / CACHE, judge_of(args))
    write_all(found, args.out)
    if args.json:
        print(json.dumps(summary(found, args.out)), flush=True)
    else:
        print("\n".join(show.lines(found)))
        print(f"written: {args.out / RESULT}, and beside it the answers, a table in Markdown and a page", flush=True)
    return 0


def suite_of(args: argparse.Namespace) -> Suite:
    return load(args.suite) if args.suite else of_run(args.run)


def judge_of(args: argparse.Namespace) -> Judge | None:
    if args.judge is None:
        return None
    rubric = read_text(args.rubric).strip() if args.rubric else judge.DEFAULT_RUBRIC
    if not rubric:
        raise RecipeUnusable(f"{args.rubric}: the rubric is empty")
    return Judge(args.judge, args.judge_model, os.environ.get(JUDGE_KEY, ""), rubric, args.judge_items)


def write_all(found: Evaluation, folder: Path, verdict: Mapping[str, Any] | None = None) -> None:
    """The document, the answers, the table, the page, which tells the gate's `verdict`, too. Raises OSError, ArtifactError."""
    write(found, folder)
    with atomic_path(folder / TABLE) as table:
        table.write_text(show.markdown(found), encoding="utf-8")
    report.write(found, folder / PAGE, verdict)


def summary(found: Evaluation, folder: Path) -> dict[str, object]:
    """For programs: what the table has, and where the rest is."""
    others = found.models[1:]
    return {
        "event": "evaluation", "path": str(folder / RESULT), "suite": found.suite["digest"],
        "models": [{"asked": one.asked, "resolved": one.resolved, "base": one.base} for one in found.models],
        "compared": {model.asked: [{**asdict(row), "words": row.words} for row in compared(found, model.asked)] for model in others},
        "means": {name: [sum(row) / len(row) for row in one.by_model] for name, one in found.scores.items()},
        "greetings_failed": found.greetings["failed"], "drift": found.drift["changes"], "notes": found.environment["notes"],
    }  # fmt: skip
