"""Elastic weight consolidation: how strong it is, and the rows that it is measured on."""

from __future__ import annotations

from finetune.recipe.datasets import DatasetReader
from finetune.recipe.document import Node
from finetune.recipe.folders import Folders
from finetune.recipe.given import Given
from finetune.recipe.recipe import EWC_ROWS, Ewc, Source
from finetune.recipe.values import Unfit, Whole

MAX_ROWS = 100_000
_ROWS = Whole(1, MAX_ROWS)


def read_ewc(given: Given, folders: Folders, general: tuple[Source, ...], is_plan: bool) -> Ewc | None:
    """None without it. `general`: the rows that are replayed, which it is measured on where it names none."""
    strength = given.get("ewc_lambda", 0.0)
    if not strength:
        if given.has("ewc") and not given.has("ewc_lambda"):
            given.problem("ewc", "it does nothing without ewc_lambda: write that, or leave it out")
        return None
    node: Node | None = given.get("ewc")
    if node is not None and not isinstance(node.value, dict):
        given.problem("ewc", f"expected {{path: FILE, rows: {EWC_ROWS}}}, got {node.shown}")
        return None
    sources = general
    if node is not None and any(name == "path" for name, _ in node.items):
        sources = DatasetReader(folders, given.findings, needs_files=not is_plan).read_list(node, "ewc")
    elif not general:
        given.problem(
            "ewc_lambda", "it is measured on general rows, and none are named: write ewc: {path: FILE}, or general"
        )
    return Ewc(strength, sources, _num_rows(given, node))


def _num_rows(given: Given, node: Node | None) -> int:
    rows = None if node is None else next((child for name, child in node.items if name == "rows"), None)
    if rows is None or rows.is_null:
        return EWC_ROWS
    try:
        return _ROWS.read(rows)
    except Unfit as exc:
        given.findings.problem(rows.place, "ewc.rows", str(exc))
        return EWC_ROWS
