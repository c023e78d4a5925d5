"""Rows of a file, or those that a training run held out, as the items of a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.demo import TARGET_DIR
from backends.demo.chat import answer_text
from finetune.dataset.row import ASSISTANT, Row, messages
from finetune.errors import RecipeUnusable
from finetune.evaluation.items import Answer, Item, Task
from finetune.evaluation.scorers import SCORERS, Given, fields_of
from finetune.export.source import recipe_of
from finetune.parity.heldout import HeldOut, of_file, of_run
from finetune.recipe.plain import from_json
from finetune.recipe.recipe import Data

MAX_TOKENS = 512
MAX_CHOICES = 50
_NUM_SHOWN = 5
CLUSTER, ID = "cluster", "id"


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the answers of a task are scored. `schema` and `choices` are for the scorers of these names."""

    scorer: str
    schema: Any = True
    choices: tuple[str, ...] = ()
    max_tokens: int = MAX_TOKENS
    cluster: str = CLUSTER
    """The field of a row that names its fact or template."""
    is_closed: bool = False


def task_of_file(name: str, path: Path, scoring: Scoring) -> Task:
    """Raises RecipeUnusable with every row that cannot be asked, DataError."""
    with of_file(path) as held_out:
        return task_of_items(name, items_of(held_out, scoring.cluster), scoring)


def task_of_run(run: Path, max_tokens: int = MAX_TOKENS) -> Task:
    """What a run held out: scored by `json_fields` where all answers are JSON objects, else by `f1`. Raises RecipeUnusable, DataError."""
    told = recipe_of(run)
    if told is not None and not _holds_out(from_json(told).data):
        raise RecipeUnusable(
            f"{run} held no rows out, and what it was trained on says nothing: name other rows in a suite, or train with val_set_size: 0.1"
        )
    with of_run(run) as held_out:
        items = items_of(held_out, CLUSTER)
    is_json = all(fields_of(item.expected) is not None for item in items)
    return task_of_items("held-out", items, Scoring("json_fields" if is_json else "f1", max_tokens=max_tokens))


def _holds_out(data: Data) -> bool:
    return bool(data.eval_sources or data.eval_share or data.eval_rows)


def is_on_demo(run: Path) -> bool:
    """Whether a run trained on the demo model."""
    told = recipe_of(run) or {}
    return Path(str(told.get("base") or "")).resolve() == TARGET_DIR.resolve()


def task_of_items(name: str, items: Sequence[Item], scoring: Scoring) -> Task:
    """Items are drawn in an order that their ids decide, so that the first n are from all over a sorted file. Raises RecipeUnusable."""
    scorer = SCORERS[scoring.scorer]
    choices = scoring.choices or _choices(items, name) if scoring.scorer == "choice" else ()
    given = Given(scoring.schema, choices)
    if scoring.scorer == "choice":
        _require_known(name, items, choices)
    ordered = sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())

    def score(item: Item, answer: Answer) -> Mapping[str, float]:
        return {scoring.scorer: scorer.score(item.expected, answer.text, given)}

    identity = {
        "rows": digest_of(ordered), "score": scoring.scorer, "score_version": scorer.version, "choices": list(choices),
        "schema": scoring.schema if scoring.scorer == "json_schema" else None,
    }  # fmt: skip
    return Task(name, scoring.scorer, lambda num: ordered[:num], score, scoring.max_tokens, identity, scoring.is_closed)


def digest_of(items: Sequence[Item]) -> str:
    """Of all that decides what is asked and wanted."""
    told = [
        [item.id, item.cluster, item.expected, item.kind, item.messages, item.tools, item.prompt, item.stop, item.choices, item.right]
        for item in items
    ]  # fmt: skip
    text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def items_of(held_out: HeldOut, cluster: str) -> list[Item]:
    """Rows that are the same twice are one item, unless they have ids of their own. Raises RecipeUnusable."""
    problems = [f"record {fault.number} is no row: {fault.why}" for fault in held_out.loaded.faults]
    found: dict[str, Item] = {}
    for place in held_out.places:
        row = held_out.loaded.row(place)
        try:
            item = _item(row, cluster)
        except ValueError as exc:
            problems.append(f"row {row.number}: {exc}")
            continue
        if item.id in found and _has_id(row):
            problems.append(f"row {row.number}: another row has the id {item.id!r} too")
        found.setdefault(item.id, item)
    if problems:
        rest = len(problems) - _NUM_SHOWN
        shown = [*problems[:_NUM_SHOWN], *([f"and {rest} more like these"] if rest > 0 else [])]
        raise RecipeUnusable([f"{held_out.words}: {problem}" for problem in shown])
    if not found:
        raise RecipeUnusable(f"{held_out.words}: there are no rows to ask")
    return list(found.values())


def _item(row: Row, cluster: str) -> Item:
    """Raises ValueError with what keeps a row from being asked."""
    if row.problems:
        raise ValueError(row.problems[0])
    found = messages(row)
    while found and found[-1]["role"] != ASSISTANT:
        found.pop()
    expected = answer_text(found[-1]) if found else ""
    if not expected.strip():
        raise ValueError("it has no answer to be held against")
    if len(found) < 2:
        raise ValueError("nothing is asked before its answer")
    asked = tuple(on_the_wire(found[:-1]))
    identity = str(row.record[ID]) if _has_id(row) else _digest(asked, expected)
    group = row.record.get(cluster)
    return Item(
        identity, str(group) if group not in (None, "") else identity, expected, asked, tuple(_tools(row.record.get("tools")))
    )  # fmt: skip


def on_the_wire(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as OpenAI's API takes them: arguments of calls as JSON text, each call with an id that its result names."""
    found: list[dict[str, Any]] = []
    pending: list[str] = []
    for place, message in enumerate(told):
        copy = dict(message)
        if copy.get("tool_calls"):
            copy["tool_calls"] = [_call(call, f"call_{place}_{at}") for at, call in enumerate(copy["tool_calls"])]
            pending = [call["id"] for call in copy["tool_calls"]]
        if copy["role"] == "tool" and "tool_call_id" not in copy:
            copy["tool_call_id"] = pending.pop(0) if pending else f"call_{place}"
        found.append(copy)
    return found


def _call(call: Mapping[str, Any], name: str) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": str(call.get("id") or name),
        "type": "function",
        "function": {"name": function["name"], "arguments": text},
    }


def _tools(told: Any) -> list[Mapping[str, Any]]:
    """Tables hold them as JSON."""
    found = json.loads(told) if isinstance(told, str) and told.strip() else told or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("`tools` is no list of objects")
    return found


def _digest(asked: Sequence[Mapping[str, Any]], expected: str) -> str:
    text = json.dumps([asked, expected], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _has_id(row: Row) -> bool:
    return row.record.get(ID) not in (None, "")


def _choices(items: Sequence[Item], name: str) -> tuple[str, ...]:
    """The different answers. Raises RecipeUnusable where they are no few labels."""
    found = tuple(sorted({item.expected.strip() for item in items}))
    if not 2 <= len(found) <= MAX_CHOICES:
        raise RecipeUnusable(
            f"{name}: score `choice` is for 2 to {MAX_CHOICES} labels, its rows have {len(found)} different answers: name them in "
            "`choices`, or score by exact or f1"
        )
    return found


def _require_known(name: str, items: Sequence[Item], choices: Sequence[str]) -> None:
    known = {choice.strip().casefold() for choice in choices}
    for item in items:
        if item.expected.strip().casefold() not in known:
            raise RecipeUnusable(f"{name}: the row {item.id} wants {item.expected!r}, which is none of `choices`")
