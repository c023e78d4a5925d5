"""How runs begin and go on: what is refused, and what of a recipe may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.recipe.plain import to_json
from finetune.recipe.recipe import Ewc, Lora, Recipe, Source
from finetune.run.begin import begin
from finetune.run.folder import FolderUnusable, RunFolder
from finetune.run.room import needed_bytes, require_room
from finetune.run.sameness import FREE, MATTERS, differences, flat
from finetune.training import checkpoints
from tests.finetune.run.rig import RECIPE_TEXT, Remembering, behave, on_a_machine_that_has_memory, recipe_in, session


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of a run that died in its seventh step."""
    behave(monkeypatch, end={"at": 7, "how": "kill"})
    on_a_machine_that_has_memory(monkeypatch)
    recipe = recipe_in(tmp_path)
    session(recipe, Remembering()).run()
    behave(monkeypatch)
    return recipe


def test_a_killed_run_goes_on_from_its_checkpoint(stopped: Recipe) -> None:
    view = Remembering()
    run = session(stopped, view, is_resume=True)
    assert run.run().status == "done"
    assert view.steps() == list(range(6, 21))
    assert [each.resumed_from for each in run.record.attempts] == [None, 5]


def test_a_torn_checkpoint_is_passed_over(stopped: Recipe) -> None:
    folder = RunFolder(stopped.output_dir)
    with checkpoints.writing(folder.checkpoints, 6) as path:
        (path / "state").write_text("whole")
        checkpoints.seal(path, 6, "")
    (folder.checkpoints / "checkpoint-6" / "state").write_text("torn")
    found = folder.newest_checkpoint()
    assert found is not None
    assert found.step == 5


def test_a_run_is_not_overwritten(stopped: Recipe) -> None:
    folder = RunFolder(stopped.output_dir)
    with pytest.raises(RecipeUnusable, match=r"did not end \(its checkpoint is of step 5\): continue it with --resume"):
        begin(folder, stopped, RECIPE_TEXT, {}, is_resume=False)
    session(stopped, Remembering(), is_resume=True).run()
    with pytest.raises(RecipeUnusable, match="holds a finished run: give --out DIR"):
        begin(folder, stopped, RECIPE_TEXT, {}, is_resume=False)


def test_other_files_are_no_run(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    recipe.output_dir.mkdir()
    (recipe.output_dir / "thesis.txt").write_text("mine")
    for is_resume in (False, True):
        with pytest.raises(RecipeUnusable, match="holds other files and no run"):
            begin(RunFolder(recipe.output_dir), recipe, RECIPE_TEXT, {}, is_resume)
    with pytest.raises(RecipeUnusable, match="is a file: name a folder"):
        begin(RunFolder(recipe.output_dir / "thesis.txt"), recipe, RECIPE_TEXT, {}, False)


def test_nothing_is_left_where_other_files_are(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeUnusable, match="holds other files and no run"), RunFolder(tmp_path).owned():
        raise AssertionError
    with pytest.raises(RecipeUnusable, match="is a file: name a folder"), RunFolder(tmp_path / "thesis.txt").owned():
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_nothing_can_be_resumed_where_nothing_is(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    with pytest.raises(RecipeUnusable, match=r"no run in .* that could be resumed: leave --resume out"):
        begin(RunFolder(recipe.output_dir), recipe, RECIPE_TEXT, {}, True)


CHANGES: dict[str, tuple[Callable[[Recipe], Recipe], str]] = {
    "rate": (
        lambda old: replace(old, steps=replace(old.steps, learning_rate=1e-5)),
        "learning_rate was 0.0002 and is 1e-05",
    ),
    "rank": (lambda old: replace(old, lora=Lora(rank=64)), "lora_r was 16 and is 64"),
    "batch": (
        lambda old: replace(old, steps=replace(old.steps, micro_batch_size=8)),
        "micro_batch_size times gradient_accumulation_steps was 8 and is 16",
    ),
    "4bit": (
        lambda old: replace(old, memory=replace(old.memory, load_in_4bit=False)),
        "load_in_4bit was true and is false",
    ),
    "data": (
        lambda old: replace(old, data=replace(old.data, sources=(Source(Path("other.jsonl")),))),
        "and is [other.jsonl]",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_recipe_that_changed_in_what_matters_is_refused(stopped: Recipe, name: str) -> None:
    change, said = CHANGES[name]
    with pytest.raises(RecipeUnusable) as refused:
        begin(RunFolder(stopped.output_dir), change(stopped), RECIPE_TEXT, {}, is_resume=True)
    assert said in str(refused.value)
    assert "--out DIR" in str(refused.value)


def test_rows_that_changed_are_seen(stopped: Recipe) -> None:
    stopped.data.sources[0].path.write_text('{"instruction": "a", "output": "c"}\n')
    with pytest.raises(RecipeUnusable, match=r"rows\.jsonl has other rows than when the run began"):
        begin(RunFolder(stopped.output_dir), stopped, RECIPE_TEXT, {}, is_resume=True)


def test_what_does_not_matter_may_change(stopped: Recipe) -> None:
    leaner = replace(
        stopped,
        steps=replace(stopped.steps, micro_batch_size=1, gradient_accumulation_steps=8),
        watch=replace(stopped.watch, save_steps=3, max_checkpoints=1),
    )
    begun = begin(RunFolder(stopped.output_dir), leaner, RECIPE_TEXT, {}, is_resume=True)
    assert begun.recipe == leaner
    assert begun.checkpoint is not None


def test_a_resume_stays_as_low_as_the_run_had_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, most=1, end={"attempt": 3, "at": 17, "how": "kill"})
    on_a_machine_that_has_memory(monkeypatch)
    recipe = recipe_in(tmp_path)
    session(recipe, Remembering(), is_oom_retried=True).run()
    begun = begin(
        RunFolder(recipe.output_dir),
        replace(recipe, watch=replace(recipe.watch, save_steps=2)),
        RECIPE_TEXT,
        {},
        is_resume=True,
    )
    assert begun.recipe.steps.micro_batch_size == 1
    assert begun.recipe.watch.save_steps == 2
    assert begun.checkpoint is not None
    assert begun.checkpoint.step == 15


def test_a_run_killed_with_its_watcher_is_told_as_failed(stopped: Recipe) -> None:
    folder = RunFolder(stopped.output_dir)
    record = json.loads(folder.record.read_text())
    record["status"] = record["attempts"][0]["status"] = "running"
    record["attempts"][0]["message"] = ""
    folder.record.write_text(json.dumps(record))
    run = session(stopped, Remembering(), is_resume=True)
    run.run()
    assert [each.status for each in run.record.attempts] == ["failed", "done"]
    assert "killed together" in run.record.attempts[0].message


def test_a_record_that_is_broken_is_said(stopped: Recipe) -> None:
    RunFolder(stopped.output_dir).record.write_text("{")
    with pytest.raises(RecipeUnusable, match="cannot be read"):
        begin(RunFolder(stopped.output_dir), stopped, RECIPE_TEXT, {}, is_resume=True)


@pytest.mark.parametrize("name", ["recipe.json", "attempts/1.json"])
def test_a_run_of_another_version_is_said(stopped: Recipe, name: str) -> None:
    path = stopped.output_dir / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "since_then": 1}))
    with pytest.raises(RecipeUnusable, match=r"not written by this version: since_then: .* or begin another run"):
        begin(RunFolder(stopped.output_dir), stopped, RECIPE_TEXT, {}, is_resume=True)


def test_two_do_not_write_to_one_folder(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.owned():
        with pytest.raises(RecipeUnusable, match="another forgegate train is writing"):
            second.owned().__enter__()
    with second.owned():
        pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnusable, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run").owned().__enter__()


def test_a_full_disk_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    require_room(1000, recipe, tmp_path / "new" / "run")
    with pytest.raises(FolderUnusable, match="keep fewer with save_total_limit"):
        require_room(10**13, recipe, tmp_path / "new" / "run")
    fewer = replace(recipe, watch=replace(recipe.watch, max_checkpoints=1))
    assert needed_bytes(10**6, fewer) < needed_bytes(10**6, recipe)


def test_every_field_of_a_recipe_either_matters_or_is_free(tmp_path: Path) -> None:
    recipe = replace(recipe_in(tmp_path), ewc=Ewc(1.0, ()))
    names = {name for name, _ in flat(recipe)} | {"lora", "ewc"}
    assert {name for name in names if not name.startswith("watch.")} == MATTERS.keys() | FREE
    assert not MATTERS.keys() & FREE


def test_a_recipe_is_no_other_than_itself(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    assert not differences(recipe, recipe)
    assert to_json(recipe) == to_json(recipe_in(tmp_path))
