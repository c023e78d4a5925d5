"""A checkpoint is whole, or it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.training import checkpoints


def save(folder: Path, step: int, data: str = "d") -> Path:
    with checkpoints.writing(folder, step) as partial:
        (partial / "optimizer.pt").write_bytes(b"x" * step)
        checkpoints.seal(partial, step, data)
    return folder / f"checkpoint-{step}"


def test_it_stands_under_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    assert checkpoints.read(path) == checkpoints.Checkpoint(path, 5, "d")
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint-5"]


def test_one_that_fails_half_way_leaves_none(tmp_path: Path) -> None:
    def fail() -> None:
        with checkpoints.writing(tmp_path, 5) as partial:
            (partial / "optimizer.pt").write_bytes(b"x")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert checkpoints.whole_ones(tmp_path) == []
    save(tmp_path, 6)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint-6"]


@pytest.mark.parametrize("fault", ["short", "missing", "no list", "bad list"])
def test_a_torn_one_is_told_and_the_one_before_it_taken(tmp_path: Path, fault: str) -> None:
    before, torn = save(tmp_path, 5), save(tmp_path, 10)
    if fault == "short":
        (torn / "optimizer.pt").write_bytes(b"x")
    elif fault == "missing":
        (torn / "optimizer.pt").unlink()
    elif fault == "no list":
        (torn / checkpoints.LIST).unlink()
    else:
        (torn / checkpoints.LIST).write_text("[]")
    found, words = checkpoints.choose(torn, tmp_path)
    assert found is not None
    assert found.path == before
    assert words == "checkpoint-10 is not whole: the run goes on from checkpoint-5"
    assert [each.step for each in checkpoints.whole_ones(tmp_path)] == [5]


def test_with_none_before_it_the_run_begins_anew(tmp_path: Path) -> None:
    assert checkpoints.choose(tmp_path / "checkpoint-4", tmp_path) == (
        None, "checkpoint-4 is not there, and there is no other before it: the run begins anew",
    )  # fmt: skip


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match="it is no checkpoint"):
        checkpoints.choose(tmp_path, tmp_path)


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100, 9):
        save(tmp_path, step)
    checkpoints.prune(tmp_path, 2)
    assert [each.step for each in checkpoints.whole_ones(tmp_path)] == [10, 100]
    checkpoints.prune(tmp_path, 0)
    assert [each.step for each in checkpoints.whole_ones(tmp_path)] == [100]


def test_those_behind_the_step_that_is_gone_on_from_are_removed(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    checkpoints.discard_after(tmp_path, 5)
    assert [each.step for each in checkpoints.whole_ones(tmp_path)] == [5]


def test_the_same_step_is_written_anew(tmp_path: Path) -> None:
    save(tmp_path, 5, "old")
    save(tmp_path, 5, "new")
    assert [each.data for each in checkpoints.whole_ones(tmp_path)] == ["new"]
