"""`recipe.yaml` to a Recipe: everything that is wrong with it is reported at once, each with its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RecipeUnusable
from finetune.recipe.adapter import adapted_names, read_lora
from finetune.recipe.base import Base, WrongRevision, find_base
from finetune.recipe.checks import check_base, check_length
from finetune.recipe.data import read_data
from finetune.recipe.document import override, parse, read_text
from finetune.recipe.ewc import read_ewc
from finetune.recipe.findings import Findings
from finetune.recipe.folders import Folders
from finetune.recipe.given import Given
from finetune.recipe.hooks import read_hooks
from finetune.recipe.memory import read_memory
from finetune.recipe.recipe import Recipe
from finetune.recipe.shapes import known_shape
from finetune.recipe.steps import read_steps
from finetune.recipe.values import Unfit
from finetune.recipe.watching import check_evaluation, read_watch


@dataclass(frozen=True, slots=True)
class Reading:
    recipe: Recipe
    notes: tuple[str, ...]
    """What is accepted and does nothing, or something else than its name says; one sentence each."""


def read(path: Path, overrides: Sequence[str] = (), *, is_plan: bool = False) -> Reading:
    """The recipe in `path`, with `key=value` of `overrides` in place of what it says.

    For a plan neither the data nor the base's weights need be there, and all weights may be trained. Raises RecipeUnusable with
    every problem.
    """
    findings = Findings()
    tree = parse(read_text(path), str(path), findings)
    if tree is None:
        raise RecipeUnusable(findings.sentences())
    for number, text in enumerate(overrides):
        override(tree, text, number, findings)
    recipe = _recipe(Given.of(tree, findings), path, is_plan)
    if findings.problems:
        raise RecipeUnusable(findings.sentences())
    return Reading(recipe, tuple(findings.notes))


def _recipe(given: Given, path: Path, is_plan: bool) -> Recipe:
    folders = Folders.of(path)
    base = _base(given, folders, is_plan)
    hooks = read_hooks(given)
    lora, is_4bit = read_lora(given, base, is_plan)
    data = read_data(given, folders, hooks.loader, is_plan)
    has_eval = bool(data.eval_sources or data.eval_share or data.eval_rows)
    check_evaluation(given, has_eval)
    if base is not None:
        check_base(given, base)
        check_length(given, base, data.max_length)
    return Recipe(
        base=base.folder if base else Path(),
        data=data,
        output_dir=folders.new(given.get("output_dir") or f"outputs/{path.stem}"),
        lora=lora,
        ewc=read_ewc(given, folders, data.general, is_plan),
        folder=folders.recipe,
        steps=read_steps(given, hooks.loss),
        memory=read_memory(given, is_4bit, hooks.loss, adapted_names(lora, base)),
        watch=read_watch(given, has_eval, hooks.callbacks),
        seed=given.get("seed", 42),
        base_name=given.get("base_model", ""),
        trust_remote_code=given.get("trust_remote_code", False),
        evaluation=_evaluation(given, folders, is_plan),
        rule=given.get("rule", ""),
    )


def _evaluation(given: Given, folders: Folders, is_plan: bool) -> Path | None:
    if not given.get("evaluation"):
        return None
    path = folders.find(given.get("evaluation"))
    if not is_plan and not path.is_file():
        given.problem("evaluation", f"there is no file {path}")
    return path


def _base(given: Given, folders: Folders, is_plan: bool) -> Base | None:
    """None where it was reported."""
    if not given.has("base_model"):
        given.problem("base_model", "it is missing: a folder of safetensors, `demo`, or a model of the hub as ORG/NAME")
    name = given.get("base_model")
    key = given.first("model_revision", "revision_of_model")
    try:
        return find_base(name, given.get(key, ""), folders, needs_weights=not is_plan) if name else None
    except WrongRevision as exc:
        given.problem(key, str(exc))
        return None
    except Unfit as exc:
        shape = known_shape(name) if is_plan else None
        if shape is not None:
            given.note("base_model", f"{name} has not been pulled: counted by its published shape")
            return find_base(str(shape), "", folders, needs_weights=False)
        given.problem("base_model", str(exc))
        return None
