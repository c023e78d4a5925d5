from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.dataset.row import Row
from finetune.dataset.tokens import Estimate, Rendered
from finetune.errors import RecipeUnusable
from finetune.plan import facts
from finetune.plan.facts import measure, supposed
from finetune.recipe.recipe import Source
from tests.finetune.plan import models


def write(path: Path, answers: list[str]) -> Source:
    """Alpaca rows; a row is estimated at a fourth of its bytes, and 6 for each turn."""
    lines = [json.dumps({"instruction": "Q" * 40, "output": answer}) for answer in answers]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Source(path)


class Doubled(Estimate):
    """A tokenizer that makes twice as many tokens as is estimated, and counts how often it is asked."""

    is_exact = True

    def __init__(self) -> None:
        self.num_asked = 0

    def length(self, row: Row) -> int:
        self.num_asked += 1
        return 2 * super().length(row)

    def render(self, row: Row) -> Rendered | None:
        return None


def test_rows_and_their_lengths(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", ["A" * 400, "A" * 80])
    found = measure(models.recipe(tmp_path, sources=(source,)), Estimate())
    assert found is not None
    assert sorted(found.lengths) == [20 + 12 + 10, 100 + 12 + 10]
    assert (found.num_rows, found.num_tokens, found.longest, found.mean_length) == (2, 164, 122, 82)
    assert found.row_of_a_token == (122 * 122 + 42 * 42) / 164
    assert not found.is_exact


def test_rows_that_are_supposed(tmp_path: Path) -> None:
    general = (Source(tmp_path / "general.jsonl"),)
    found = supposed(
        models.recipe(tmp_path, eval_share=0.1, general=general, general_share=0.2, max_length=4096), 1000, 300
    )
    assert (found.num_rows, found.num_eval_rows, found.num_general, found.num_general_wanted) == (1125, 100, 225, 225)
    assert set(found.lengths) == {300}
    assert not found.is_exact
    assert set(supposed(models.recipe(tmp_path, max_length=4096), 10).lengths) == {facts.ROW_TOKENS}
    assert supposed(models.recipe(tmp_path, max_length=100), 10, 300).num_too_long == 10


@pytest.mark.parametrize(("too_long", "lengths"), [("drop", [42]), ("truncate", [42, 100]), ("raise", [42])])
def test_long_rows_are_as_the_recipe_has_them(tmp_path: Path, too_long: str, lengths: list[int]) -> None:
    source = write(tmp_path / "rows.jsonl", ["A" * 400, "A" * 80])
    found = measure(models.recipe(tmp_path, sources=(source,), max_length=100, too_long=too_long), Estimate())
    assert found is not None
    assert sorted(found.lengths) == lengths
    assert found.num_too_long == 1


@pytest.mark.parametrize(
    ("changes", "trained", "held_out"),
    [({"eval_share": 0.1}, 90, 10), ({"eval_rows": 7}, 93, 7), ({"eval_share": 0.001}, 99, 1), ({}, 100, 0)],
)
def test_rows_that_are_held_out_are_not_trained(
    tmp_path: Path, changes: dict[str, Any], trained: int, held_out: int
) -> None:
    source = write(tmp_path / "rows.jsonl", [f"answer {number}" for number in range(100)])
    found = measure(models.recipe(tmp_path, sources=(source,), **changes), Estimate())
    assert found is not None
    assert (found.num_rows, found.num_eval_rows) == (trained, held_out)


@pytest.mark.parametrize(
    ("num_rows", "changes", "said"),
    [
        (100, {"eval_rows": 500}, "val_set_size: 500 rows of 100: none would be left to train"),
        (100, {"eval_rows": 100}, "val_set_size: 100 rows of 100: none would be left to train"),
        (1, {"eval_share": 0.1}, "val_set_size: 1 rows of 1: none would be left to train"),
    ],
)
def test_what_leaves_no_row_to_train_is_refused_as_training_does(
    tmp_path: Path, num_rows: int, changes: dict[str, Any], said: str
) -> None:
    source = write(tmp_path / "rows.jsonl", [f"answer {number}" for number in range(num_rows)])
    with pytest.raises(RecipeUnusable) as refused:
        measure(models.recipe(tmp_path, sources=(source,), **changes), Estimate())
    assert str(refused.value) == said


def test_evaluation_files_leave_the_training_set_whole(tmp_path: Path) -> None:
    source, held_out = write(tmp_path / "rows.jsonl", ["one"] * 20), write(tmp_path / "eval.jsonl", ["two"] * 3)
    recipe = models.recipe(tmp_path, sources=(source,), eval_sources=(held_out,), eval_share=0.5)
    found = measure(recipe, Estimate())
    assert found is not None
    assert (found.num_rows, found.num_eval_rows) == (20, 3)


@pytest.mark.parametrize(("there", "replayed", "wanted"), [(100, 20, 20), (20, 20, 20), (5, 5, 20)])
def test_general_rows_make_up_their_share(tmp_path: Path, there: int, replayed: int, wanted: int) -> None:
    source, general = write(tmp_path / "rows.jsonl", ["one"] * 80), write(tmp_path / "chat.jsonl", ["two"] * there)
    found = measure(models.recipe(tmp_path, sources=(source,), general=(general,), general_share=0.2), Estimate())
    assert found is not None
    assert (found.num_rows, found.num_general, found.num_general_wanted) == (80 + replayed, replayed, wanted)


def test_their_share_is_of_rows_that_are_trained(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", ["one"] * 80 + ["A" * 800] * 40)
    general = write(tmp_path / "chat.jsonl", ["two"] * 15 + ["A" * 800] * 15)
    recipe = models.recipe(tmp_path, sources=(source,), general=(general,), general_share=0.2, max_length=100)
    found = measure(recipe, Estimate())
    assert found is not None
    assert (found.num_rows, found.num_general, found.num_general_wanted) == (95, 15, 20)
    assert found.num_too_long == 55


def test_rows_beyond_the_first_are_corrected_by_what_those_showed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "EXACT_ROWS", 10)
    source, tokens = write(tmp_path / "rows.jsonl", ["A" * 80] * 50), Doubled()
    found = measure(models.recipe(tmp_path, sources=(source,)), tokens)
    assert found is not None
    assert set(found.lengths) == {84}
    assert tokens.num_asked == 10
    assert found.is_exact


def test_records_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", ["one"] * 5)
    with source.path.open("a") as file:
        file.write('{"instruction": "cut off\n')
    found = measure(models.recipe(tmp_path, sources=(source,)), Estimate())
    assert found is not None
    assert (found.num_rows, found.num_unreadable) == (5, 1)


def test_a_loader_of_the_users_own_is_not_run(tmp_path: Path) -> None:
    assert measure(models.recipe(tmp_path, loader="mine:rows"), Estimate()) is None


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    recipe = models.recipe(tmp_path, sources=(Source(tmp_path / "none.jsonl"),))
    with pytest.raises(RecipeUnusable, match=r"none\.jsonl: there is no such file"):
        measure(recipe, Estimate())


@pytest.mark.torch
@pytest.mark.slow
def test_a_model_with_a_tokenizer_counts_by_it(tmp_path: Path) -> None:
    from backends.demo.folders import TARGET_DIR

    source = write(tmp_path / "rows.jsonl", ["Your order was sent on Monday."] * 3)
    found = measure(models.recipe(TARGET_DIR, sources=(source,)))
    assert found is not None
    assert found.is_exact
    assert not isinstance(facts.tokens_of(TARGET_DIR), Estimate)
    assert isinstance(facts.tokens_of(tmp_path), Estimate)
