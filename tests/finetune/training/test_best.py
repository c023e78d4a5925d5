"""The adapter of the lowest evaluation, over attempts that go back before it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from finetune.training.best import Best

pytestmark = pytest.mark.torch


@pytest.fixture
def written() -> list[Path]:
    return []


@pytest.fixture
def best(tmp_path: Path, written: list[Path]) -> Best:
    def write(out: Path) -> None:
        out.mkdir(parents=True)
        (out / "weights").write_text(str(len(written)))
        written.append(out)

    return Best(tmp_path / "run" / "best", write)


def weights(best: Best) -> str:
    return (best.adapter / "weights").read_text()


def test_the_lowest_is_kept_with_its_step(best: Best) -> None:
    assert best.found() is None
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.0), (40, math.nan), (50, 2.5)):
        best.offer(step, loss)
    found = best.found()
    assert found is not None
    assert (found.step, found.loss, weights(best)) == (20, 2.0, "1")


def test_a_loss_that_is_no_number_is_never_kept(best: Best, written: list[Path]) -> None:
    best.offer(10, math.nan)
    best.offer(20, math.inf)
    assert (best.found(), written) == (None, [])


@pytest.mark.parametrize(("step", "is_kept"), [(0, False), (20, False), (30, True), (40, True)])
def test_one_beyond_the_step_that_is_gone_on_from_is_another_trajectorys(best: Best, step: int, is_kept: bool) -> None:
    best.offer(30, 2.0)
    best.drop_after(step)
    assert (best.found() is not None) == is_kept
    assert best.folder.is_dir() == is_kept
    best.offer(step + 10, 2.5)
    found = best.found()
    assert found is not None
    assert (found.step, found.loss) == ((30, 2.0) if is_kept else (step + 10, 2.5))


@pytest.mark.parametrize("damage", ["", "{", "{}", "[1]", '{"step": "a", "loss": 2}'])
def test_one_of_which_the_step_is_not_known_goes(best: Best, damage: str) -> None:
    best.offer(10, 2.0)
    (note,) = best.folder.glob("*.json")
    note.write_text(damage)
    assert best.found() is None
    best.drop_after(100)
    assert not best.folder.exists()
