"""Items of `datasets`, `test_datasets`, `general` and `ewc` to sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.dataset.formats import ROLES
from finetune.recipe import dataset_keys as keys
from finetune.recipe.document import Node
from finetune.recipe.findings import Findings, Place, nearest
from finetune.recipe.folders import Folders
from finetune.recipe.keys import is_off
from finetune.recipe.recipe import Source
from finetune.recipe.values import Choice, Text, Unfit, Words

_KINDS = frozenset({"json", "jsonl", "csv", "tsv", "parquet", "xlsx", "text"})
"""What `path` may say in place of a file where data_files names them."""
_STYLE = "a style of prompt means nothing here, since rows are rendered with the base's own chat template: write alpaca or chat_template"
_SUPERVISED = "training here is supervised: write alpaca, sharegpt, chat_template or completion"
_SHAREGPT = "write sharegpt or chat_template: roles and turns are recognised"
FORMS = Choice(
    {"alpaca": "alpaca", "alpaca_w_system": "alpaca", "sharegpt": "sharegpt", "chat_template": "chat_template", "completion": "completion"},
    {
        **dict.fromkeys(("alpaca_chat", "alpaca:chat", "alpaca:chatml", "alpaca_chat.load_qa", "gpteacher", "oasst", "reflection"), _STYLE),
        **dict.fromkeys(("sharegpt.simple", "sharegpt.load_role", "sharegpt.load_ultrachat", "sharegpt:chat"), _SHAREGPT),
        "chatml": "write chat_template: messages with role and content are that",
        **dict.fromkeys(("dpo", "orpo", "kto", "chat_template.default", "chatml.intel", "stepwise_supervised",
                         "bradley_terry.chat_template"),
                        _SUPERVISED),
        "input_output": "segments with their own mask are not read: write messages, with `train: false` in what is not trained",
        "pretrain": _SUPERVISED,
        "synthetic": "an adapter is trained on data: name a file",
    },
)  # fmt: skip
_HUB_SET = re.compile(r"[A-Za-z0-9][\w-]*/[\w.-]+")
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet", ".txt")


@dataclass(frozen=True, slots=True)
class DatasetReader:
    folders: Folders
    findings: Findings
    needs_files: bool
    """Whether a missing file is a problem, or noted only."""

    def read_list(self, node: Node, where: str) -> tuple[Source, ...]:
        """`[{path, ...}, ...]`; a single item may stand alone."""
        items = node.value if isinstance(node.value, list) else [node]
        if not items:
            self.findings.problem(node.place, where, "it is empty: name a file under path")
        is_list = isinstance(node.value, list)
        return tuple(
            source
            for index, item in enumerate(items)
            for source in self.read_item(item, f"{where}[{index}]" if is_list else where)
        )

    def read_item(self, node: Node, where: str) -> tuple[Source, ...]:
        if not isinstance(node.value, dict):
            self.findings.problem(node.place, where, f"expected {{path: FILE, type: ...}}, got {node.shown}")
            return ()
        self._check_keys(node, where)
        self._check_roles(node, where)
        form = self._form(node, where)
        columns = dict(self._columns(node, where))
        return tuple(Source(path, form, columns) for path in self._paths(node, where))

    def _check_keys(self, node: Node, where: str) -> None:
        in_type = next((child for name, child in node.items if name == "type" and isinstance(child.value, dict)), None)
        for name, child in (*node.items, *(in_type.items if in_type else ())):
            key = f"{where}.{name}"
            if name in keys.REFUSED:
                if not is_off(child, keys.HARMLESS.get(name, ())):
                    self.findings.problem(child.place, key, f"refused: {keys.REFUSED[name]}")
            elif name in keys.NOTED:
                if not child.is_null:
                    self.findings.note(key, f"without effect: {keys.NOTED[name]}")
            elif keys.OF_SECTION.get(name, where) != where:
                self.findings.problem(child.place, key, f"it is for {keys.OF_SECTION[name]} only: leave it out")
            elif name not in keys.HONOURED:
                close = nearest(name, keys.HONOURED)
                self.findings.problem(child.place, key, f"unknown key{f'; did you mean {close}?' if close else ''}")

    def _check_roles(self, node: Node, where: str) -> None:
        """`{assistant: [gpt, model]}`: of the words that are known, each means one role only."""
        given = next((child for name, child in node.items if name == "roles" and not child.is_null), None)
        if given is not None and not isinstance(given.value, dict):
            self.findings.problem(given.place, f"{where}.roles", f"expected {{assistant: [gpt]}}, got {given.shown}")
        for role, child in given.items if given is not None else ():
            try:
                wrong = [word for word in Words().read(child) if ROLES.get(word.lower()) != role]
            except Unfit as exc:
                self.findings.problem(child.place, f"{where}.roles.{role}", str(exc))
                continue
            for word in wrong:
                means = f"it means {ROLES[word.lower()]}" if word.lower() in ROLES else f"known are {', '.join(ROLES)}"
                self.findings.problem(child.place, f"{where}.roles.{role}", f"{word}: {means}: rename it in the file")

    def _form(self, node: Node, where: str) -> str:
        given = dict(node.items).get("type")
        if given is None or given.is_null:
            return ""
        if isinstance(given.value, dict):  # Axolotl's own prompts: its fields are columns
            return "alpaca"
        try:
            return str(FORMS.read(given))
        except Unfit as exc:
            self.findings.problem(given.place, f"{where}.type", str(exc))
            return ""

    def _columns(self, node: Node, where: str) -> Iterator[tuple[str, str]]:
        pairs = dict(node.items)
        for name, child in (*pairs.items(), *(pairs["type"].items if "type" in pairs else ())):
            if name in keys.COLUMN_KEYS and not child.is_null:
                yield from self._column(keys.COLUMN_KEYS[name], child, f"{where}.{name}")
        given = pairs.get("columns")
        if given is not None and not isinstance(given.value, dict) and not given.is_null:
            self.findings.problem(
                given.place, f"{where}.columns", f"expected {{instruction: FIELD, ...}}, got {given.shown}"
            )
        for name, child in given.items if given is not None else ():
            if name not in keys.COLUMNS:
                self.findings.problem(
                    child.place, f"{where}.columns.{name}", f"it is none of {', '.join(keys.COLUMNS)}"
                )
            else:
                yield from self._column(name, child, f"{where}.columns.{name}")

    def _column(self, column: str, node: Node, key: str) -> Iterator[tuple[str, str]]:
        try:
            field = Text().read(node)
        except Unfit as exc:
            self.findings.problem(node.place, key, str(exc))
            return
        if field != column:
            yield column, field

    def _paths(self, node: Node, where: str) -> Iterator[Path]:
        pairs = dict(node.items)
        given, files = pairs.get("path"), pairs.get("data_files")
        if given is None or given.is_null:
            self.findings.problem(node.place, f"{where}.path", "it is missing: name a file")
            return
        try:
            names = Words().read(given)
            inside = () if files is None or files.is_null else Words().read(files)
        except Unfit as exc:
            self.findings.problem(given.place, f"{where}.path", str(exc))
            return
        for name in names:
            yield from self._files(name, inside, given.place, f"{where}.path")

    def _files(self, name: str, inside: tuple[str, ...], place: Place, key: str) -> Iterator[Path]:
        path = self.folders.find(name)
        if inside and name in _KINDS and not os.path.exists(path):
            yield from (found for each in inside if (found := self._file(self.folders.find(each), each, place, key)))
        elif inside and os.path.isdir(path):
            yield from (found for each in inside if (found := self._file(path / each, each, place, key)))
        elif inside:
            self.findings.problem(
                place, key, f"{name}: data_files wants a folder, or one of {', '.join(sorted(_KINDS))}, as path"
            )
        elif os.path.isdir(path):
            self.findings.problem(place, key, f"{path} is a folder: name its files with data_files")
        elif found := self._file(path, name, place, key):
            yield found

    def _file(self, path: Path, name: str, place: Place, key: str) -> Path | None:
        if os.path.isfile(path):  # pathlib raises where a name is too long
            return path
        words = f"there is no file {path}"
        if _HUB_SET.fullmatch(name) and not name.lower().endswith(_SUFFIXES):
            words = f"there is no file {path}, and sets of a hub are not fetched: download {name}, and name its files"
        elif close := nearest(path.name, _names_in(path.parent)):
            words += f"; did you mean {close}?"
        if self.needs_files:
            self.findings.problem(place, key, words)
            return None
        self.findings.note(key, words)
        return path


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []
