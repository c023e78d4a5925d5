"""Rows that the adapter was not trained on: of a file, or those that its run held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune.dataset.loading import Loaded
from finetune.dataset.progress import Unwatched
from finetune.dataset.split import held_out_of
from finetune.dataset.spool import Spool
from finetune.errors import RecipeUnusable
from finetune.export.source import recipe_of
from finetune.recipe.plain import from_json
from finetune.recipe.recipe import Recipe, Source
from finetune.training.hooks import load_hook
from finetune.training.sources import read_sources


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`places` of rows in what was loaded."""

    loaded: Loaded
    places: Sequence[int]
    words: str
    """What they are, for messages."""


@contextmanager
def of_file(path: Path) -> Iterator[HeldOut]:
    """Raises DataError."""
    with Spool() as spool:
        loaded = read_sources([Source(path)], spool, Unwatched())
        yield HeldOut(loaded, range(len(spool)), str(path))


@contextmanager
def of_run(run: Path) -> Iterator[HeldOut]:
    """The very rows that training evaluated on; where it held none out, those that it trained on. Raises DataError, RecipeUnusable."""
    told = recipe_of(run)
    if told is None:
        raise RecipeUnusable(f"{run} has no recipe (attempts/*.json): name held-out rows with --data FILE")
    recipe = from_json(told)
    with Spool() as spool:
        yield _of_recipe(recipe, spool, run)


def _of_recipe(recipe: Recipe, spool: Spool, run: Path) -> HeldOut:
    data = recipe.data
    words = f"what {run} held out"
    if data.eval_sources:
        loaded = read_sources(data.eval_sources, spool, Unwatched())
        return HeldOut(loaded, range(len(spool)), words)
    folders = [run, recipe.output_dir.parent, *(source.path.parent for source in data.sources)]
    loader = load_hook(data.loader, "loader", folders) if data.loader else None
    loaded = read_sources(data.sources, spool, Unwatched(), loader)
    if not (data.eval_share or data.eval_rows):
        return HeldOut(loaded, range(len(spool)), f"what {run} was trained on, as it held nothing out")
    chosen, _ = held_out_of(loaded, loaded.rows(), data.held_out_share(len(spool)), recipe.seed, Unwatched())
    return HeldOut(loaded, sorted(chosen), words)
