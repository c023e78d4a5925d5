"""The data of a recipe: what is trained, evaluated and replayed."""

from __future__ import annotations

from finetune.recipe.datasets import DatasetReader
from finetune.recipe.document import Node
from finetune.recipe.folders import Folders
from finetune.recipe.given import Given
from finetune.recipe.recipe import Data, Source
from finetune.recipe.values import Number, Unfit

GENERAL_SHARE = 0.2
_FORM_NOTES = {
    "alpaca": "rows are rendered with the base's own chat template, as engines render requests, not as `### Instruction`",
    "completion": "rows are a prompt and its completion, or text with the marks of a template; text without a question is not learned",
}
_SHARE = Number(above=0, high=0.9)


def read_data(given: Given, folders: Folders, loader: str, is_plan: bool) -> Data:
    """`loader`: the recipe's hook."""
    reader = DatasetReader(folders, given.findings, needs_files=not is_plan)
    sources = _sources(given, reader, "datasets")
    if not given.has("datasets") and not loader:
        given.problem("datasets", "it is missing: name the files, as `datasets: [{path: data.jsonl}]`")
    eval_sources = _sources(given, reader, "test_datasets")
    share, rows = _held_out(given)
    general, general_share = _general(given, reader)
    _check_overlap(given, sources, eval_sources)
    for form in dict.fromkeys(source.form for source in (*sources, *general, *eval_sources)):
        if form in _FORM_NOTES:
            given.note("datasets", f"type: {form}: {_FORM_NOTES[form]}")
    return Data(
        sources=sources,
        eval_sources=eval_sources,
        eval_share=share,
        eval_rows=rows,
        general=general,
        general_share=general_share,
        max_length=given.get("sequence_len", 2048),
        too_long=_too_long(given),
        assistant_only=not given.get("train_on_inputs", False),
        loader=loader,
    )


def _sources(given: Given, reader: DatasetReader, name: str) -> tuple[Source, ...]:
    node: Node | None = given.get(name)
    return reader.read_list(node, name) if node is not None else ()


def _held_out(given: Given) -> tuple[float, int]:
    """A share of the rows, or how many of them."""
    size = given.get("val_set_size", 0.0)
    if size and given.has("test_datasets"):
        given.problem("val_set_size", "test_datasets is given too: keep one of them, or write 0")
    if size == 1:
        given.problem(
            "val_set_size", "1 is all rows, or a single one: write a share below 1, or how many rows, at least 2"
        )
    elif size > 1 and size != int(size):
        given.problem("val_set_size", f"{size:g} is neither a share below 1 nor a whole number of rows")
    return (size, 0) if size < 1 else (0.0, int(size))


def _general(given: Given, reader: DatasetReader) -> tuple[tuple[Source, ...], float]:
    node: Node | None = given.get("general")
    if node is None:
        return (), 0.0
    if isinstance(node.value, list):
        given.problem("general", "expected {path: FILE, share: 0.2}, got a list: path takes a list of files")
        return (), 0.0
    share = next((child for name, child in node.items if name == "share" and not child.is_null), None)
    try:
        amount = GENERAL_SHARE if share is None else _SHARE.read(share)
    except Unfit as exc:
        given.findings.problem(share.place if share else node.place, "general.share", str(exc))
        amount = GENERAL_SHARE
    return reader.read_list(node, "general"), amount


def _too_long(given: Given) -> str:
    strategy = str(given.get("excess_length_strategy", Data(()).too_long))
    if strategy == "truncate":
        given.note(
            "excess_length_strategy",
            "truncate: rows that are cut lose their end, and the model does not learn to stop there",
        )
    return strategy


def _check_overlap(given: Given, sources: tuple[Source, ...], eval_sources: tuple[Source, ...]) -> None:
    """Rows that are trained on say nothing when they are evaluated."""
    trained = [source.path for source in sources]
    for path in dict.fromkeys(source.path for source in eval_sources if source.path in trained):
        given.problem("test_datasets", f"{path} is trained on too: take it out of one of them, or write val_set_size")
    for path in dict.fromkeys(path for index, path in enumerate(trained) if path in trained[:index]):
        given.problem("datasets", f"{path} is given twice: its rows would count double")
