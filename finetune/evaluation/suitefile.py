"""`suite.yaml` to a Suite: everything that is wrong with it is reported at once, each with its line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.dataset.errors import DataError
from finetune.errors import RecipeUnusable
from finetune.evaluation import demo, schema
from finetune.evaluation.items import Task
from finetune.evaluation.rows import CLUSTER, MAX_TOKENS, Scoring, task_of_file
from finetune.evaluation.scorers import SCORERS
from finetune.evaluation.suite import RULES, SEED, Suite
from finetune.recipe.document import SUITE, Node, parse, read_text
from finetune.recipe.findings import Findings, Place, nearest
from finetune.recipe.values import Choice, Kind, Number, Structure, Switch, Text, Unfit, Whole, Words

_POINTS = Number(high=99.0, above=0.0)
_TOP: Mapping[str, Kind] = {
    "task": Structure("a task"),
    "general": Structure("demo, or a list of tasks, or {lm_eval: FOLDER}"),
    "max_drop": Structure("points, or {NAME: points}"),
    "rule": Choice({rule: rule for rule in RULES}),
    "seed": Whole(),
}
_TASK: Mapping[str, Kind] = {
    "name": Text(),
    "path": Text(),
    "score": Choice({name: name for name in SCORERS}),
    "schema": Text(),
    "choices": Words(),
    "cluster": Text(),
    "closed": Switch(),
    "max_tokens": Whole(low=1, high=32_768),
}
_LM_EVAL: Mapping[str, Kind] = {"lm_eval": Text(), "tasks": Words()}


def read(path: Path) -> Suite:
    """Raises RecipeUnusable with every problem."""
    findings = Findings()
    tree = parse(read_text(path), str(path), findings, SUITE)
    suite = _Reader(findings, path.parent).suite(tree) if tree is not None else None
    if suite is None or findings.problems:
        raise RecipeUnusable(findings.sentences())
    return suite


@dataclass(frozen=True, slots=True)
class _Section:
    """Values of the keys that are given, and where they stand."""

    values: Mapping[str, Any]
    places: Mapping[str, Place]
    own: Place

    def place(self, name: str) -> Place:
        return self.places.get(name, self.own)


class _Reader:
    def __init__(self, findings: Findings, folder: Path) -> None:
        self._findings = findings
        self._folder = folder

    def suite(self, tree: Node) -> Suite | None:
        top = self._section(tree, _TOP, "")
        task = self._task(top.values["task"], "task") if "task" in top.values else None
        if "task" not in top.places:
            self._findings.problem(
                top.own,
                "task",
                "it is missing: what the model was tuned for, such as {name: tickets, path: held-out.jsonl, score: f1}",
            )
        general = self._general(top.values["general"]) if "general" in top.values else []
        self._require_names([*([task] if task else []), *general], top)
        drops = self._max_drop(top.values["max_drop"], general) if "max_drop" in top.values else {}
        if task is None:
            return None
        return Suite(task, tuple(general), drops, top.values.get("rule", RULES[0]), top.values.get("seed", SEED))

    def _task(self, node: Node, where: str) -> Task | None:
        """None where it was reported."""
        section = self._section(node, _TASK, where)
        given = section.values
        num_before = len(self._findings.problems)
        for name in ("name", "path", "score"):
            if name not in section.places and isinstance(node.value, dict):
                self._findings.problem(section.own, f"{where}.{name}", f"it is missing: {_TASK[name].words}")
        scorer = given.get("score", "")
        for name, wanted in (("schema", "json_schema"), ("choices", "choice")):
            if name in given and scorer and scorer != wanted:
                self._findings.problem(section.place(name), f"{where}.{name}", f"it goes with score: {wanted}")
        if scorer == "json_schema" and "schema" not in section.places:
            self._findings.problem(section.own, f"{where}.schema", "it is missing: the file of the JSON schema")
        held = self._schema(given["schema"], section, where) if "schema" in given else True
        if not {"name", "path", "score"} <= given.keys() or len(self._findings.problems) > num_before:
            return None
        scoring = Scoring(
            scorer, held, given.get("choices", ()), given.get("max_tokens", MAX_TOKENS), given.get("cluster", CLUSTER),
            given.get("closed", False),
        )  # fmt: skip
        try:
            return task_of_file(given["name"], self._folder / given["path"], scoring)
        except (RecipeUnusable, DataError) as exc:
            for problem in str(exc).splitlines():
                self._findings.problem(section.place("path"), f"{where}.path", problem)
            return None

    def _general(self, node: Node) -> list[Task]:
        several = node.value if isinstance(node.value, list) else [node]
        found: list[Task] = []
        for place, each in enumerate(several):
            where = f"general.{place}" if isinstance(node.value, list) else "general"
            found += self._some_general(each, where)
        return found

    def _some_general(self, node: Node, where: str) -> Sequence[Task]:
        if isinstance(node.value, dict) and "lm_eval" in node.value:
            return self._lm_eval(node, where)
        if isinstance(node.value, dict):
            task = self._task(node, where)
            return [task] if task else []
        if node.value == demo.NAME:
            return demo.skills()
        self._findings.problem(
            node.place, where, f"expected demo, a list of tasks, or {{lm_eval: FOLDER}}, got {node.shown}"
        )
        return []

    def _lm_eval(self, node: Node, where: str) -> Sequence[Task]:
        from finetune.evaluation.lmeval import tasks_of

        section = self._section(node, _LM_EVAL, where)
        if "lm_eval" not in section.values:
            return []
        try:
            return tasks_of(self._folder / section.values["lm_eval"], section.values.get("tasks", ()))
        except (RecipeUnusable, DataError) as exc:
            for problem in str(exc).splitlines():
                self._findings.problem(section.place("lm_eval"), f"{where}.lm_eval", problem)
            return []

    def _max_drop(self, node: Node, general: Sequence[Task]) -> dict[str, float]:
        if not isinstance(node.value, dict):
            return {"*": points} if (points := self._points(node, "max_drop")) is not None else {}
        names = [task.name for task in general]
        found = {}
        for name, below in node.items:
            if not any(each == name or each.startswith(f"{name}_") for each in names):
                close = nearest(name, names)
                hint = f"did you mean {close}?" if close else f"there are: {', '.join(names) or 'none'}"
                self._findings.problem(below.place, f"max_drop.{name}", f"no general skill has this name; {hint}")
            elif (points := self._points(below, f"max_drop.{name}")) is not None:
                found[name] = points
        return found

    def _points(self, node: Node, where: str) -> float | None:
        try:
            return float(_POINTS.read(node))
        except Unfit as exc:
            self._findings.problem(node.place, where, f"points of 100: {exc}")
            return None

    def _schema(self, name: str, section: _Section, where: str) -> Any:
        path = self._folder / name
        try:
            held = json.loads(path.read_bytes())
            schema.check(held)
        except OSError as exc:
            self._findings.problem(section.place("schema"), f"{where}.schema", f"{path}: {exc.strerror or exc}")
        except (ValueError, RecursionError) as exc:
            self._findings.problem(section.place("schema"), f"{where}.schema", f"{path}: it is no JSON ({exc})")
        except schema.SchemaUnusable as exc:
            self._findings.problem(section.place("schema"), f"{where}.schema", f"{path}: {exc}")
        else:
            return held
        return True

    def _section(self, node: Node, kinds: Mapping[str, Kind], where: str) -> _Section:
        if not isinstance(node.value, dict):
            self._findings.problem(
                node.place, where, f"expected keys and values ({', '.join(kinds)}), got {node.shown}"
            )
        values: dict[str, Any] = {}
        places: dict[str, Place] = {}
        for name, below in node.items:
            key = f"{where}.{name}".removeprefix(".")
            if name not in kinds:
                close = nearest(name, kinds)
                hint = f"did you mean {close}?" if close else f"known are {', '.join(kinds)}"
                self._findings.problem(below.place, key, f"unknown key; {hint}")
                continue
            if below.is_null:
                continue
            places[name] = below.place
            try:
                values[name] = kinds[name].read(below)
            except Unfit as exc:
                self._findings.problem(below.place, key, str(exc))
        return _Section(values, places, node.place)

    def _require_names(self, tasks: Sequence[Task], top: _Section) -> None:
        names = [task.name for task in tasks]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self._findings.problem(top.own, "", f"two tasks are named {name!r}: give each a name of its own")
