"""How a run begins: anew in an empty folder, or where an earlier one ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetune.errors import RecipeUnusable
from finetune.recipe.plain import from_json, to_json
from finetune.recipe.recipe import Recipe
from finetune.run.ending import DONE
from finetune.run.environment import environment
from finetune.run.files import changes, files_of
from finetune.run.folder import RunFolder, writing
from finetune.run.record import Record
from finetune.run.sameness import differences, flat
from finetune.training.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class Begun:
    """`recipe` is what the next attempt is told; `checkpoint` None: from the first step."""

    record: Record
    recipe: Recipe
    checkpoint: Checkpoint | None
    words: str = ""
    """What the user should know of it."""


def begin(folder: RunFolder, recipe: Recipe, text: str, plan: Mapping[str, Any], is_resume: bool) -> Begun:
    """`text`: the recipe's file as it was given. Raises RecipeUnusable with what to do instead, FolderUnusable."""
    folder.refuse_foreign()
    if folder.is_run and not is_resume:
        raise RecipeUnusable(_existing_words(folder))
    if is_resume and not folder.is_run:
        raise RecipeUnusable(f"there is no run in {folder.path} that could be resumed: leave --resume out")
    if is_resume and folder.recipe_json.is_file():
        return _continued(folder, recipe, text)
    record = Record.new(folder)
    record.keep()
    record.files = files_of(recipe)
    folder.write_json(folder.environment, environment())
    folder.write_json(folder.plan, plan)
    _write_recipe(folder, recipe, text)
    record.keep()
    return Begun(record, recipe, None)


def _continued(folder: RunFolder, recipe: Recipe, text: str) -> Begun:
    record = Record.load(folder)
    given_before = from_json(folder.read_json(folder.recipe_json))
    problems = [*differences(given_before, recipe), *changes(record.files, files_of(recipe))]
    if problems:
        changed = "; ".join(problems)
        raise RecipeUnusable(
            f"the run in {folder.path} cannot be resumed with this recipe: {changed}. Take that back, or begin another run with --out DIR"
        )
    if record.status == DONE:
        return Begun(record, given_before, None, f"the run in {folder.path} is finished already")
    chosen = recipe if not record.attempts else _chosen(folder, record, given_before, recipe)
    checkpoint = folder.newest_checkpoint()
    where = f"from step {checkpoint.step}" if checkpoint else "from the beginning: there is no whole checkpoint yet"
    folder.write_json(folder.environment, environment())
    _write_recipe(folder, recipe, text)
    return Begun(record, chosen, checkpoint, f"resuming {folder.path} {where}")


def _chosen(folder: RunFolder, record: Record, before: Recipe, recipe: Recipe) -> Recipe:
    """As low a step as the last attempt was, unless the user has changed how memory is used."""
    last = from_json(folder.read_json(folder.attempt(record.attempt.number)))
    if _use_of_memory(before) != _use_of_memory(recipe) and not differences(last, recipe):
        return recipe
    return replace(
        last, watch=recipe.watch, output_dir=recipe.output_dir, base_name=recipe.base_name, folder=recipe.folder
    )


def _use_of_memory(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in flat(recipe) if name.startswith("memory.") or "batch" in name}


def _write_recipe(folder: RunFolder, recipe: Recipe, text: str) -> None:
    with writing(folder.recipe_yaml):
        folder.recipe_yaml.write_text(text, encoding="utf-8")
    folder.write_json(folder.recipe_json, to_json(recipe))


def _existing_words(folder: RunFolder) -> str:
    record = Record.load(folder)
    if record.status == DONE:
        return f"output_dir {folder.path} holds a finished run: give --out DIR, or remove it to train anew"
    checkpoint = folder.newest_checkpoint()
    saved = f"its checkpoint is of step {checkpoint.step}" if checkpoint else "it has no checkpoint yet"
    return f"output_dir {folder.path} holds a run that did not end ({saved}): continue it with --resume, give --out DIR, or remove it"
