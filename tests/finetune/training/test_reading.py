"""The recipe's data to token ids, with a renderer that makes a token of each word."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.dataset.progress import Unwatched
from finetune.dataset.row import ASSISTANT, Row
from finetune.dataset.tokens import Rendered
from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import Data, Source
from finetune.training.reading import Prepared, Reader


class Words:
    """Word n is token n; what the assistant says is trained."""

    def render(self, row: Row) -> Rendered:
        if "refuse me" in row.question:
            raise DataUnusable("the chat template refuses the row: roles must alternate")
        said = [(word, turn.role == ASSISTANT) for turn in row.turns for word in turn.text.split()]
        return Rendered(
            tuple(int(word[1:]) if word[1:].isdigit() else 0 for word, _ in said), tuple(flag for _, flag in said)
        )


def rows_file(path: Path, rows: Iterable[tuple[str, str]]) -> Source:
    lines = [json.dumps({"instruction": question, "output": answer}) for question, answer in rows]
    path.write_text("\n".join(lines))
    return Source(path)


def prepare(data: Data, seed: int = 1, loader: Any = None) -> Prepared:
    return Reader(data, Words(), seed, Unwatched(), loader).prepare()


def numbers(prepared: Prepared) -> list[int]:
    return [int(number) for number in prepared.train.numbers]


def distinct(count: int, first: int = 0) -> list[tuple[str, str]]:
    """Rows that are nobody's near duplicates."""
    return [
        (f"{chr(97 + place % 26) * 9} {place * 7919} {chr(97 + place // 26) * 9}", f"w{place}")
        for place in range(first, first + count)
    ]


def test_a_row_is_its_ids_with_its_mask(tmp_path: Path) -> None:
    prepared = prepare(Data((rows_file(tmp_path / "a.jsonl", [("w1 w2", "w3"), ("w4", "w5 w6")]),)))
    ids, is_trained = prepared.train.row(1)
    assert (list(ids), list(is_trained)) == ([4, 5, 6], [False, True, True])
    assert (prepared.train.num_tokens, prepared.train.num_trained, numbers(prepared)) == (6, 3, [1, 2])


def test_a_first_token_is_never_trained(tmp_path: Path) -> None:
    data = Data((rows_file(tmp_path / "a.jsonl", [("w1 w2", "w3")]),), assistant_only=False)
    assert list(prepare(data).train.row(0)[1]) == [False, True, True]


def test_rows_with_nothing_to_train_are_left_out_and_counted(tmp_path: Path) -> None:
    prepared = prepare(Data((rows_file(tmp_path / "a.jsonl", [("w1", "w2"), ("w1", ""), ("refuse me", "w2")]),)))
    assert numbers(prepared) == [1]
    assert prepared.counts.by_kind["masked_out"] == 1
    assert prepared.counts.num_dropped == 1
    assert [note.partition(" (")[2] for note in prepared.counts.notes(10)] == [
        "the first: row 3: the chat template refuses the row: roles must alternate)", "the first: row 2)",
    ]  # fmt: skip


@pytest.mark.parametrize(("too_long", "left", "kind"), [("drop", [1], "too_long"), ("truncate", [1, 2], "truncated")])
def test_rows_that_are_too_long(tmp_path: Path, too_long: str, left: list[int], kind: str) -> None:
    source = rows_file(tmp_path / "a.jsonl", [("w1", "w2"), ("w1", "w2 w3 w4 w5")])
    prepared = prepare(Data((source,), max_length=3, too_long=too_long))
    assert numbers(prepared) == left
    assert prepared.counts.by_kind[kind] == 1
    assert max(prepared.train.lengths) <= 3
    with pytest.raises(RecipeUnusable, match="row 2 has 5 tokens, sequence_len is 3"):
        prepare(Data((source,), max_length=3, too_long="raise"))


def test_a_row_cut_before_its_answer_is_left_out(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "a.jsonl", [("w1", "w2"), ("w1 w2 w3 w4", "w5")])
    prepared = prepare(Data((source,), max_length=3, too_long="truncate"))
    assert numbers(prepared) == [1]
    assert prepared.counts.by_kind["masked_out"] == 1


def test_held_out_rows_are_the_seeds_and_are_not_trained(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "a.jsonl", distinct(50))
    first, again, other = (prepare(Data((source,), eval_share=0.2), seed) for seed in (1, 1, 2))
    assert first.held_out is not None
    held_out = {int(number) for number in first.held_out.numbers}
    assert len(held_out) == 10
    assert held_out.isdisjoint(numbers(first))
    assert numbers(first) == numbers(again) != numbers(other)


def test_so_many_rows_are_held_out(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "a.jsonl", distinct(50))
    held_out = prepare(Data((source,), eval_rows=7)).held_out
    assert held_out is not None
    assert len(held_out) == 7
    with pytest.raises(RecipeUnusable, match="none would be left to train"):
        prepare(Data((source,), eval_rows=50))


def test_evaluation_files_are_taken_whole(tmp_path: Path) -> None:
    data = Data(
        (rows_file(tmp_path / "a.jsonl", distinct(5)),),
        (rows_file(tmp_path / "b.jsonl", distinct(3, 30)),),
        eval_share=0.0,
    )
    prepared = prepare(data)
    assert prepared.held_out is not None
    assert (len(prepared.train), len(prepared.held_out)) == (5, 3)


def test_general_rows_make_up_their_share_of_what_is_trained(tmp_path: Path) -> None:
    own, general = rows_file(tmp_path / "a.jsonl", distinct(30)), rows_file(tmp_path / "g.jsonl", distinct(40, 100))
    prepared = prepare(Data((own,), general=(general,), general_share=0.25))
    assert prepared.num_general == 10
    assert len(prepared.train) == 40
    assert all(30 < number <= 70 for number in numbers(prepared)[30:])
    with pytest.raises(RecipeUnusable, match=r"takes 120 general ones, 40 can be trained: at most share: 0\.57"):
        prepare(Data((own,), general=(general,), general_share=0.8))


def test_each_file_has_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("ask,say\nw7,w8\n")
    sources = (
        rows_file(tmp_path / "a.jsonl", [("w1", "w2")]),
        Source(tmp_path / "b.csv", columns={"instruction": "ask", "output": "say"}),
    )
    prepared = prepare(Data(sources))
    assert list(prepared.train.ids) == [1, 2, 7, 8]
    assert numbers(prepared) == [1, 2]


def test_a_form_that_the_recipe_insists_on(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "a.jsonl", [("w1", "w2")])
    assert len(prepare(Data((Source(source.path, "alpaca"),))).train) == 1
    with pytest.raises(RecipeUnusable, match="the recipe says type: sharegpt, row 1 is Alpaca"):
        prepare(Data((Source(source.path, "sharegpt"),)))


def test_no_row_at_all_says_why(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "a.jsonl", [("w1", "w2 w3 w4")])
    with pytest.raises(RecipeUnusable, match="there is no row to train: 1 rows are longer than sequence_len: 2"):
        prepare(Data((source,), max_length=2))


def test_the_users_loader_is_in_place_of_the_files(tmp_path: Path) -> None:
    def loader(paths: list[str]) -> Iterable[Any]:
        assert paths == ["somewhere"]
        yield {"instruction": "w1", "output": "w2"}
        yield {"nothing": "known"}
        yield {"instruction": "w3", "output": "w4"}

    prepared = prepare(Data((Source(Path("somewhere")),)), loader=loader)
    assert numbers(prepared) == [1, 3]
    assert prepared.counts.by_kind["unreadable"] == 1

    def broken(paths: list[str]) -> Iterable[Any]:
        yield {"instruction": "w1", "output": "w2"}
        raise KeyError("url")

    with pytest.raises(RecipeUnusable, match="the loader of the recipe failed: KeyError: 'url'"):
        prepare(Data(()), loader=broken)
