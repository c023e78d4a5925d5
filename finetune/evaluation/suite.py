"""A suite: the task that a model was tuned for, the general skills that it must keep, and how far they may drop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.evaluation.items import Task

Rule = Literal["improve", "non-inferior"]
RULES: tuple[Rule, ...] = ("improve", "non-inferior")
MAX_DROP = 3.0
"""Points of 100 that a general skill may lose."""
KNOWN_DROPS: Mapping[str, float] = {"mmlu": 3.0, "hellaswag": 2.0, "arc_challenge": 2.0}
"""Of public benchmarks, which are large enough to tell less."""
SEED = 0
_VERSION = 1
"""Of how items are asked and scored: another one gives suites another digest."""


@dataclass(frozen=True, slots=True)
class Suite:
    task: Task
    general: tuple[Task, ...]
    max_drop: Mapping[str, float] = field(default_factory=dict)
    """Points by general skill, or by the beginning of its name up to an underscore; `*` for all others."""
    rule: Rule = "improve"
    seed: int = SEED

    @property
    def tasks(self) -> tuple[Task, ...]:
        return (self.task, *self.general)

    @property
    def digest(self) -> str:
        """`sha256:` of what decides a score: rows, schemas, scorers, how it is asked. Never a path or a time."""
        told = {
            "version": _VERSION, "seed": self.seed, "task": _identity(self.task),
            "general": sorted((_identity(task) for task in self.general), key=lambda one: str(one["name"])),
        }  # fmt: skip
        text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def drops(self) -> dict[str, float]:
        """Points that each general skill may lose, by its whole name."""
        return {task.name: self._drop(task.name) for task in self.general}

    def _drop(self, name: str) -> float:
        for table in (self.max_drop, {} if "*" in self.max_drop else KNOWN_DROPS):
            near = [key for key in table if name == key or name.startswith(f"{key}_")]
            if near:
                return table[max(near, key=len)]
        return self.max_drop.get("*", MAX_DROP)


def _identity(task: Task) -> dict[str, object]:
    return {"name": task.name, "metric": task.metric, "max_tokens": task.max_tokens, **task.identity}


def load(path: Path) -> Suite:
    """The suite in a YAML file. Raises RecipeUnusable with all that is wrong with it, DataError."""
    from finetune.evaluation.suitefile import read

    return read(path)


def of_run(run: Path, is_demo: bool | None = None, rule: Rule = "improve") -> Suite:
    """What a training run is held against without a suite of its own: its held-out rows, and the demo model's skills on the demo model.

    Scored by `json_fields` where all of the answers are JSON objects, else by `f1`. `is_demo`: what it trained on; None: as the run says.
    Raises RecipeUnusable, DataError.
    """
    from finetune.evaluation.rows import is_on_demo, task_of_run

    task = task_of_run(run)
    general: tuple[Task, ...] = ()
    if is_on_demo(run) if is_demo is None else is_demo:
        from finetune.evaluation.demo import skills

        general = skills()
    return Suite(task, general, rule=rule)
