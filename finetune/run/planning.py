"""`forgegate train RECIPE --plan`: what a run would take. Needs neither torch nor numpy."""

from __future__ import annotations

import argparse
import json

from finetune.dataset.progress import watch
from finetune.plan import show
from finetune.plan.device import detect, named
from finetune.plan.facts import measure
from finetune.plan.plan import limited
from finetune.plan.plan import plan as make_plan
from finetune.recipe.reading import read
from finetune.recipe.recipe import Recipe


def plan(args: argparse.Namespace) -> int:
    """Raises TrainError."""
    reading = read(args.recipe, args.set, is_plan=True)
    device = named(args.gpu) if args.gpu else detect()
    device = device if args.memory_limit is None else limited(device, args.memory_limit)
    with watch() as bars:
        facts = measure(reading.recipe, watch=bars) if _has_data(reading.recipe) else None
    planned = make_plan(reading.recipe, facts, device, args.gpu_hour_price, args.processes)
    if args.json:
        print(json.dumps({**planned.as_json(), "recipe_notes": list(reading.notes)}, ensure_ascii=False, indent=1))
    else:
        print("\n".join([show.text(planned), *(f"note: {note}" for note in reading.notes)]))
    return 0


def _has_data(recipe: Recipe) -> bool:
    """A plan is of use before the data is there."""
    sources = (*recipe.data.sources, *recipe.data.eval_sources, *recipe.data.general)
    return all(source.path.exists() for source in sources)
