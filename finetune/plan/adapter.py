"""How many parameters an adapter trains, and which rank suits a set of data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetune.errors import RecipeUnusable
from finetune.plan.facts import DataFacts
from finetune.plan.shape import Linear, ModelShape
from finetune.recipe.recipe import ALL_LINEAR, Lora, Recipe

FEW_ROWS, MANY_ROWS = 1_000, 10_000
RANKS = {
    4: "a simple change of style",
    8: "light tasks, and sets of fewer than 1,000 rows",
    16: "where to start",
    32: "a complex domain with much data",
    64: "close to full fine-tuning: overfits easily",
    128: "special cases only: mostly overfits",
}
"""The article's table."""


@dataclass(frozen=True, slots=True)
class Advice:
    rank: int
    """What the number of rows speaks for."""
    is_followed: bool
    words: str


def adapted(shape: ModelShape, lora: Lora) -> tuple[Linear, ...]:
    """The linear layers that get matrices A and B. Raises RecipeUnusable."""
    if lora.targets == (ALL_LINEAR,):
        return shape.linears
    known = {linear.name: linear for linear in shape.linears}
    missing = [name for name in lora.targets if name not in known]
    if missing:
        raise RecipeUnusable(
            f"lora_target_modules: {', '.join(missing)}: the linear layers of a {shape.model_type} model are {', '.join(known)}"
        )
    return tuple(known[name] for name in dict.fromkeys(lora.targets))


def num_trainable(shape: ModelShape, lora: Lora | None) -> int:
    """Parameters that are trained: r * (in + out) of each adapted layer (arXiv 2106.09685), or all. Raises RecipeUnusable."""
    if lora is None:
        return shape.num_parameters
    return sum(lora.rank * (linear.num_in + linear.num_out) * linear.count for linear in adapted(shape, lora))


def with_rank(recipe: Recipe, facts: DataFacts | None) -> Recipe:
    """The recipe with a rank by its number of rows, where it says `auto`; `facts` None: where that is not known."""
    lora = recipe.lora
    if lora is None or lora.rank:
        return recipe
    rank = preset(facts.num_own if facts else None)
    return replace(recipe, lora=replace(lora, rank=rank, alpha=lora.alpha or 2.0 * rank))


def preset(num_rows: int | None) -> int:
    """The article's rule: r=8 for few rows, else r=16. More is for a complex domain, which no number of rows tells."""
    return 8 if num_rows is not None and num_rows < FEW_ROWS else 16


def advise(rank: int, num_rows: int | None) -> Advice:
    """By the article's rule: r=16 to start with, r=8 below 1,000 rows, more for much data of a complex domain."""
    if num_rows is None:
        start = "" if rank == 16 else "; start with r=16"
        return Advice(16, rank == 16, f"r={rank}: {_use(rank)}{start}; r=8 with fewer than {FEW_ROWS:,} rows")
    is_small = num_rows < FEW_ROWS
    lowest, highest, advised = (4, 8, preset(num_rows)) if is_small else (8, 32, preset(num_rows))
    start = f"start with r={advised}" + (", or r=32 in a complex domain" if num_rows >= MANY_ROWS else "")
    rows = f"{num_rows:,} rows"
    if rank > highest:
        return Advice(advised, False, f"r={rank} may overfit {rows} ({_use(rank)}): {start}")
    if rank < lowest:
        return Advice(advised, False, f"r={rank} may learn too little of {rows} ({_use(rank)}): {start}")
    return Advice(advised, True, f"r={rank} suits {rows}: {_use(rank)}")


def _use(rank: int) -> str:
    """What the next lower rank of the table is for."""
    return RANKS[max((known for known in RANKS if known <= rank), default=4)]
