"""What the data says that a plan depends on: how many rows are trained, and how long they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from finetune.dataset.errors import DataError, DataLacksPackage
from finetune.dataset.loading import load
from finetune.dataset.progress import Unwatched, Watch
from finetune.dataset.ratio import num_general_of
from finetune.dataset.row import Row
from finetune.dataset.spool import Spool
from finetune.dataset.tokens import Estimate, ModelTokens, Tokens
from finetune.errors import LacksPackage, RecipeUnusable
from finetune.recipe.recipe import Data, Recipe, Source
from finetune.recipe.shares import require_rest

EXACT_ROWS = 2_000
"""Tokenised of each set; the lengths of more rows are estimated, and corrected by what these showed."""
ROW_TOKENS = 512
"""Of rows that are supposed, where the recipe keeps as many."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    lengths: tuple[int, ...]
    """Tokens of each row that is trained, replayed ones included."""
    num_eval_rows: int = 0
    num_too_long: int = 0
    """Longer than `max_length`: left out, or truncated, as the recipe has it."""
    num_unreadable: int = 0
    """Records that are no rows."""
    num_general: int = 0
    """Of the rows: replayed against forgetting."""
    num_general_wanted: int = 0
    """As many make up their share; with fewer the recipe is refused."""
    is_exact: bool = False
    """Counted by the model's own tokenizer, as far as EXACT_ROWS go."""
    num_own: int = 0
    """Rows of the recipe's `datasets` that are not held out, whatever their length."""

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def mean_length(self) -> float:
        return self.num_tokens / max(1, self.num_rows)

    @property
    def row_of_a_token(self) -> float:
        """Tokens of the row that a token lies in, on average: long rows have more of them."""
        return sum(length**2 for length in self.lengths) / max(1, self.num_tokens)

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)


def measure(recipe: Recipe, tokens: Tokens | None = None, watch: Watch | None = None) -> DataFacts | None:
    """Reads the recipe's files once. None where a loader of the user's own yields the rows.

    `tokens`: else the model's tokenizer where it is there, and transformers too. Raises RecipeUnusable, LacksPackage.
    """
    if recipe.data.loader:
        return None
    counter = tokens or tokens_of(recipe.base)
    files = _Files(counter, watch or Unwatched())
    try:
        own, held_out = files.lengths(recipe.data.sources), files.lengths(recipe.data.eval_sources)
        general = files.lengths(recipe.data.general) if recipe.data.general_share else []
    except DataLacksPackage as exc:
        raise LacksPackage(str(exc)) from exc
    except DataError as exc:
        raise RecipeUnusable(str(exc)) from exc
    return _facts(recipe, own, held_out, general, files.num_unreadable, counter.is_exact)


def supposed(recipe: Recipe, num_rows: int, row_tokens: int | None = None) -> DataFacts:
    """As if there were so many rows, each of `row_tokens`, and general ones as the recipe wants. Raises RecipeUnusable."""
    length = row_tokens or min(ROW_TOKENS, recipe.data.max_length)
    general = num_general_of(num_rows, recipe.data.general_share) if recipe.data.general else 0
    return _facts(recipe, [length] * num_rows, [], [length] * general, 0, is_exact=False)


def tokens_of(base: Path) -> Tokens:
    """The model's own, else an estimate."""
    try:
        return ModelTokens(base)
    except DataError:
        return Estimate()


def _facts(
    recipe: Recipe, own: list[int], held_out: list[int], general: list[int], num_unreadable: int, is_exact: bool
) -> DataFacts:
    data, rng = recipe.data, Random(recipe.seed)
    num_split = 0 if held_out else _num_split(data, len(own))
    trained, num_too_long = _fitting(data, rng.sample(own, len(own) - num_split) if num_split else own)
    wanted = num_general_of(len(trained), data.general_share) if data.general else 0
    replayed, num_longer = _fitting(data, rng.sample(general, len(general)), wanted)
    return DataFacts(
        (*trained, *replayed),
        len(held_out) or num_split,
        num_too_long + num_longer,
        num_unreadable,
        len(replayed),
        wanted,
        is_exact,
        len(own) - num_split,
    )


def _num_split(data: Data, num_rows: int) -> int:
    """How many of the rows are held out. Raises RecipeUnusable where none would be left."""
    share = data.held_out_share(num_rows)
    num_split = data.eval_rows or (max(1, round(share * num_rows)) if share and num_rows else 0)
    if num_split:
        require_rest(num_split, num_rows)
    return num_split


def _fitting(data: Data, lengths: Sequence[int], most: int | None = None) -> tuple[list[int], int]:
    """The lengths of the first `most` rows that are trained, and how many longer ones there are before the last of them."""
    kept: list[int] = []
    num_too_long = 0
    for length in lengths:
        if len(kept) == most:
            break
        num_too_long += length > data.max_length
        if length <= data.max_length or data.too_long == "truncate":
            kept.append(min(length, data.max_length))
    return kept, num_too_long


@dataclass(slots=True)
class _Files:
    """Lengths of the rows of sets of files."""

    tokens: Tokens
    watch: Watch
    num_unreadable: int = 0
    estimate: Estimate = field(default_factory=Estimate)

    def lengths(self, sources: Sequence[Source]) -> list[int]:
        return list(self._measured(row for source in sources for row in self._rows(source)))

    def _rows(self, source: Source) -> Iterator[Row]:
        with Spool() as spool:
            loaded, rows = load([source.path], spool, source.columns, self.watch)
            yield from rows
            self.num_unreadable += len(loaded.faults)

    def _measured(self, rows: Iterator[Row]) -> Iterator[int]:
        """By the tokenizer as long as that is quick, then by the estimate times what the tokenizer showed of it."""
        exact = estimated = 0
        for number, row in enumerate(rows):
            guess = self.estimate.length(row)
            if number < EXACT_ROWS:
                length = self._exact(row, guess)
                exact, estimated = exact + length, estimated + guess
            else:
                length = round(guess * exact / max(1, estimated))
            yield length

    def _exact(self, row: Row, guess: int) -> int:
        """A row that the chat template refuses is the doctor's matter, and the trainer's: here it only needs a length."""
        try:
            return self.tokens.length(row)
        except DataError:
            return guess
