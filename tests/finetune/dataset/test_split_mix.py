"""Parts that share no question, and mixtures at a ratio."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from finetune.dataset.doctor import Options, examine
from finetune.dataset.errors import DataUnusable
from finetune.dataset.mix import mix
from finetune.dataset.progress import Unwatched
from finetune.dataset.ratio import num_general_of
from finetune.dataset.split import choose, split
from finetune.dataset.spool import Spool
from tests.finetune.dataset.faults import near_duplicate
from tests.finetune.dataset.tickets import alpaca, chat, distinct


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    rng = Random(2)
    rows: list[object] = []
    for record in distinct(rng, 400):
        rows += near_duplicate(rng, record).records if rng.random() < 0.5 else [record]
    rng.shuffle(rows)
    path, train, held_out = write(tmp_path / "all.jsonl", rows), tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
    parts = split([path], train, held_out, 0.2, 1, {}, Unwatched())
    assert (parts.num_train, parts.num_eval) == (len(read(train)), len(read(held_out)))
    assert parts.num_train + parts.num_eval == len(rows)
    assert 0.15 <= parts.num_eval / len(rows) <= 0.2
    with Spool() as spool:
        found = examine([train], spool, Options(eval_paths=(held_out,)))
    assert found.findings["leakage"].count == 0
    first = train.read_bytes()
    split([path], train, held_out, 0.2, 1, {}, Unwatched())
    assert train.read_bytes() == first
    split([path], train, held_out, 0.2, 2, {}, Unwatched())
    assert train.read_bytes() != first


def test_a_cluster_larger_than_the_share_stays_in_training() -> None:
    chosen = choose(10, lambda place: 0 if place < 8 else place, 0.2, 0)
    assert chosen == {8, 9}


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_shares_that_are_none(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a"}])
    with pytest.raises(DataUnusable, match="between 0 and 1"):
        split([path], tmp_path / "t.jsonl", tmp_path / "e.jsonl", share, 0, {}, Unwatched())


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a"}])
    with pytest.raises(DataUnusable, match="cannot be split"):
        split([path], tmp_path / "t.jsonl", tmp_path / "e.jsonl", 0.5, 0, {}, Unwatched())
    assert not (tmp_path / "t.jsonl").exists()


def test_a_mixture_has_the_ratio_and_one_form(tmp_path: Path) -> None:
    rng = Random(4)
    domain = write(tmp_path / "domain.jsonl", list(distinct(rng, 80, alpaca)))
    general = write(tmp_path / "general.jsonl", list(distinct(rng, 60, chat)))
    out = tmp_path / "mixed.jsonl"
    mixture = mix([domain], [general], out, 0.2, 0, {}, Unwatched())
    rows = read(out)
    assert (mixture.num_domain, mixture.num_general, mixture.ratio) == (80, 20, 0.2)
    assert [row["source"] for row in rows].count("general") == 20
    assert {row["source"] for row in rows[:20]} == {"domain", "general"}
    assert all(set(row) == {"messages", "source"} for row in rows)


def test_too_few_general_rows_are_refused_with_the_ratio_that_would_do(tmp_path: Path) -> None:
    rng = Random(4)
    domain = write(tmp_path / "domain.jsonl", list(distinct(rng, 80, alpaca)))
    general = write(tmp_path / "general.jsonl", list(distinct(rng, 10, alpaca)))
    with pytest.raises(DataUnusable, match=r"takes 20 general ones, there are 10: at most --ratio 0\.11"):
        mix([domain], [general], tmp_path / "out.jsonl", 0.2, 0, {}, Unwatched())


def test_the_articles_shares() -> None:
    assert num_general_of(800, 0.2) == 200
    assert num_general_of(900, 0.1) == 100
