"""`forgegate train RECIPE --plan`: what a run would take. Needs neither torch nor numpy."""

from __future__ import annotations

import argparse
import json

from finetune.dataset.progress import watch
from finetune.plan import show
from finetune.plan.adapter import with_rank
from finetune.plan.device import detect, named
from finetune.plan.facts import DataFacts, measure, supposed
from finetune.plan.plan import limited
from finetune.plan.plan import plan as make_plan
from finetune.recipe.reading import read
from finetune.recipe.recipe import Recipe


def plan(args: argparse.Namespace) -> int:
    """Raises TrainError."""
    reading = read(args.recipe, args.set, is_plan=True)
    device = named(args.gpu) if args.gpu else detect()
    device = device if args.memory_limit is None else limited(device, args.memory_limit)
    facts = supposed(reading.recipe, args.rows, args.row_tokens) if args.rows else _measured(reading.recipe)
    planned = make_plan(with_rank(reading.recipe, facts), facts, device, args.gpu_hour_price, args.processes)
    if args.json:
        print(json.dumps({**planned.as_json(), "recipe_notes": list(reading.notes)}, ensure_ascii=False, indent=1))
    else:
        print("\n".join([show.text(planned), *(f"note: {note}" for note in reading.notes)]))
    return 0


def _measured(recipe: Recipe) -> DataFacts | None:
    with watch() as bars:
        return measure(recipe, watch=bars) if _has_data(recipe) else None


def _has_data(recipe: Recipe) -> bool:
    """A plan is of use before the data is there."""
    sources = (*recipe.data.sources, *recipe.data.eval_sources, *recipe.data.general)
    return all(source.path.exists() for source in sources)
