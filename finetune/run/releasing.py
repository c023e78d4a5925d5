"""How far a run's publication goes, as its recipe and its command say; and what will keep the gate from GO, said before training."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from finetune.candidacy import MOST_ITEMS
from finetune.evaluation.suite import load
from finetune.gating.verdict import RULES
from finetune.recipe.base import DEMO
from finetune.recipe.recipe import Recipe
from finetune.recipelines import remedy_lines
from finetune.release import CANARY_FOR_S, NO_HELD_OUT, Canary, Plan, suite_of
from finetune.run.folder import RunFolder

NO_GENERAL = (
    "no suite is given, so that nothing says what the adapter forgot, and the gate cannot say GO: write evaluation: suite.yaml, "
    "or give --candidate-only"
)


def plan_of(args: argparse.Namespace, recipe: Recipe, folder: RunFolder) -> Plan:
    """Without the suite of a run that is still to be made: `with_suite` adds it. Raises RecipeUnusable, DataError."""

    def remedies() -> Iterator[str]:
        return remedy_lines(folder.recipe_yaml, args.set)

    canary = Canary(args.canary, args.canary_for or CANARY_FOR_S) if args.canary else None
    suite = load(recipe.evaluation) if recipe.evaluation and not args.candidate_only else None
    rule = next((known for known in RULES if known == (args.rule or recipe.rule)), None)
    return Plan(
        suite, folder.evaluation, rule, args.max_items or MOST_ITEMS, args.candidate_only, args.force or "", canary, remedies
    )  # fmt: skip


def with_suite(plan: Plan, folder: RunFolder) -> Plan:
    """What the run held out, where its recipe names no suite. Raises RecipeUnusable, DataError."""
    if plan.suite is not None or plan.is_candidate_only:
        return plan
    return replace(plan, suite=suite_of(folder.path))


def foreseen(plan: Plan, recipe: Recipe) -> str:
    """Why it will not go live by itself; empty where it may."""
    if plan.suite is not None or plan.is_candidate_only or plan.force:
        return ""
    if not (recipe.data.eval_sources or recipe.data.eval_share or recipe.data.eval_rows):
        return NO_HELD_OUT
    return "" if recipe.base_name == DEMO else NO_GENERAL
