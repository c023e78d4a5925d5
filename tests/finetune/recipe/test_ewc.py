"""ewc_lambda and ewc in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.recipe.plain import from_json, to_json
from finetune.recipe.recipe import Ewc, Source
from finetune.run.files import files_of
from finetune.run.sameness import differences
from tests.finetune.recipe.conftest import ROW, Problems, Read


def test_rows_of_its_own(read_text: Read, folder: Path) -> None:
    recipe = read_text("ewc_lambda: 2e3\newc: {path: general.jsonl, type: alpaca, rows: 64}\n").recipe
    assert recipe.ewc == Ewc(2000.0, (Source(folder / "general.jsonl", "alpaca"),), 64)
    assert from_json(to_json(recipe)) == recipe
    assert str(folder / "general.jsonl") in files_of(recipe)["data"]


def test_the_rows_that_are_replayed(read_text: Read, folder: Path) -> None:
    said = "general: {path: general.jsonl, share: 0.1}\newc_lambda: 1\n"
    for more in ("", "ewc: {rows: 256}\n", "ewc:\n"):
        assert read_text(said + more).recipe.ewc == Ewc(1.0, (Source(folder / "general.jsonl"),), 256)


@pytest.mark.parametrize("text", ["", "ewc_lambda: 0\n", "ewc_lambda: 0\newc: {path: general.jsonl}\n"])
def test_without_it(read_text: Read, text: str) -> None:
    assert read_text(text).recipe.ewc is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "ewc_lambda: 1\n",
            "5: ewc_lambda: it is measured on general rows, and none are named: write ewc: {path: FILE}, or general",
        ),
        ("ewc: {path: general.jsonl}\n", "5: ewc: it does nothing without ewc_lambda: write that, or leave it out"),
        ("ewc_lambda: 1\newc: general.jsonl\n", "6: ewc: expected {path: FILE, rows: 256}, got 'general.jsonl'"),
        ("ewc_lambda: 1\newc: {path: general.jsonl, rows: 0}\n", "6: ewc.rows: must be 1 to 100000, got 0"),
        ("ewc_lambda: 1\newc: {path: general.jsonl, row: 4}\n", "6: ewc.row: unknown key; did you mean rows?"),
        (
            "ewc_lambda: 1\newc: {path: general.jsonl, share: 0.2}\n",
            "6: ewc.share: it is for general only: leave it out",
        ),
        ("ewc_lambda: -1\n", "5: ewc_lambda: must be 0 or more, got -1"),
    ],
)
def test_what_is_wrong_is_said(problems_of: Problems, text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_rows_is_for_it_alone(problems_of: Problems) -> None:
    assert problems_of("general: {path: general.jsonl, rows: 4}\n") == [
        "5: general.rows: it is for ewc only: leave it out"
    ]


def test_another_strength_is_another_run(read_text: Read, folder: Path) -> None:
    one = read_text("ewc_lambda: 1\newc: {path: general.jsonl}\n").recipe
    (folder / "other.jsonl").write_text(ROW)
    assert differences(one, read_text("ewc_lambda: 2\newc: {path: general.jsonl}\n").recipe) == [
        "ewc_lambda was 1.0 and is 2.0"
    ]
    assert differences(one, read_text("ewc_lambda: 1\newc: {path: other.jsonl}\n").recipe)
    assert differences(read_text().recipe, one)


def test_a_rank_by_the_number_of_rows(read_text: Read, problems_of: Problems) -> None:
    lora = read_text("lora_r: auto\n").recipe.lora
    assert lora is not None
    assert (lora.rank, lora.alpha) == (0, 0.0)
    assert read_text("lora_r: auto\n").notes == ()
    given = read_text("lora_r: auto\nlora_alpha: 24\n").recipe.lora
    assert given is not None
    assert (given.rank, given.alpha) == (0, 24.0)
    assert problems_of("lora_r: much\n") == ["5: lora_r: expected a whole number or auto, got 'much'"]
