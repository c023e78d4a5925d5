"""Evaluations and suites without an endpoint, for tests of what is decided from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.evaluation.items import Answer, Item, Task
from finetune.evaluation.result import PAGE, Evaluation, Model, Scored, write
from finetune.evaluation.suite import Rule, Suite
from finetune.jsonchild import Tell

BASE = "demo@0123456789ab"
OLD, NEW = "support@aaaaaaaaaaaa", "support@bbbbbbbbbbbb"
SKILLS = ("facts", "arithmetic")


def task(name: str, num_available: int = 10_000) -> Task:
    def draw(num: int) -> Sequence[Item]:
        return [Item(f"{name}-{n}", f"{name}-{n}", "yes") for n in range(min(num, num_available))]

    def score(item: Item, answer: Answer) -> Mapping[str, float]:
        return {"exact": float(item.expected == answer.text)}

    return Task(name, "exact", draw, score, 8, {"rows": name})


def suite(rule: Rule = "improve", **sizes: int) -> Suite:
    """`sizes`: how many items there are of a task."""
    tasks = [task(name, sizes.get(name, 10_000)) for name in ("tickets", *SKILLS)]
    return Suite(tasks[0], tuple(tasks[1:]), rule=rule)


def written(result: Evaluation, folder: Path, verdict: Mapping[str, Any] | None = None) -> None:
    """In place of all that is shown of an evaluation: the evaluation, and the verdict that the page is given."""
    write(result, folder)
    (folder / PAGE).write_text(json.dumps(verdict), encoding="utf-8")


class Models:
    """In place of `evaluate`: each model has a share of every task right, by number, the same items each time."""

    def __init__(self, shares: Mapping[str, Mapping[str, float]]) -> None:
        """By model, by task; 1.0 where none is said."""
        self.shares = shares
        self.asked: list[tuple[tuple[str, ...], dict[str, int]]] = []

    def evaluate(
        self, suite: Suite, endpoint: object, models: Sequence[str], num_items: Mapping[str, int], tell: Tell, cache: Path | None
    ) -> Evaluation:  # fmt: skip
        self.asked.append((tuple(models), dict(num_items)))
        scores = {}
        for one in suite.tasks:
            items = [item.id for item in one.draw(num_items[one.name])]
            rows = tuple(tuple(self._score(model, one.name, item) for item in items) for model in models)
            scores[one.name] = Scored("exact", tuple(items), tuple(items), rows)
        return evaluation(scores, models, suite)

    def _score(self, model: str, name: str, item: str) -> float:
        place = int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") / 2**32
        return float(place < self.shares.get(model, {}).get(name, 1.0))


def evaluation(scores: Mapping[str, Scored], models: Sequence[str], suite: Suite) -> Evaluation:
    told: dict[str, Any] = {
        "digest": suite.digest, "task": suite.task.name, "general": [one.name for one in suite.general],
        "max_drop": suite.drops(), "rule": suite.rule,
    }  # fmt: skip
    known = tuple(Model(name, BASE if name == "demo" else name, BASE) for name in models)
    return Evaluation(told, known, scores, {}, [], {}, {}, None, {}, None, {})
