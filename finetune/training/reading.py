"""The recipe's data to token ids: read, held out, replayed, rendered, cut to length."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

from finetune.dataset.errors import DataUnusable
from finetune.dataset.loading import Loaded
from finetune.dataset.progress import Watch
from finetune.dataset.ratio import num_general_of
from finetune.dataset.row import Row
from finetune.dataset.split import held_out_of
from finetune.dataset.spool import Spool
from finetune.dataset.tokens import Rendered
from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import Data, Ewc
from finetune.recipe.shares import general_words, require_rest
from finetune.training.rows import Collector, TokenRows
from finetune.training.sources import Loader, read_sources

_DOCTOR = "`forgegate data doctor` shows all"
_KINDS = {
    "unreadable": f"records are no rows and are left out; {_DOCTOR}",
    "refused": f"rows are left out, the chat template refuses them; {_DOCTOR}",
    "too_long": "rows are longer than sequence_len: {max_length} and are left out",
    "truncated": "rows are cut at sequence_len: {max_length}, what their answers say behind it is not learnt",
    "masked_out": "rows are left out, none of their tokens is trained",
}
_DROPPED = ("unreadable", "refused", "too_long")


@dataclass(slots=True)
class Counts:
    """How many rows are not trained as they are, by the kinds above, and the first of each kind."""

    by_kind: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        self.by_kind[kind] += 1
        self.first.setdefault(kind, example)

    @property
    def num_dropped(self) -> int:
        """Without those that are left out because their mask is empty."""
        return sum(self.by_kind[kind] for kind in _DROPPED)

    def notes(self, max_length: int) -> tuple[str, ...]:
        return tuple(
            f"{count:,} {_KINDS[kind].format(max_length=max_length)} (the first: {self.first[kind]})"
            for kind, count in self.by_kind.items()
            if count
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    train: TokenRows
    held_out: TokenRows | None
    num_general: int
    """Of `train`'s rows; their numbers run on from those of the domain's files."""
    counts: Counts


class Reader:
    """`renderer` is a ModelTokens: its `render` gives a row's ids and which of them are trained. Raises RecipeUnusable, DataError."""

    def __init__(self, data: Data, renderer: Any, seed: int, watch: Watch, loader: Loader | None = None) -> None:
        self._data, self._renderer, self._seed, self._watch, self._loader = data, renderer, seed, watch, loader
        self._counts = Counts()

    def prepare(self) -> Prepared:
        """The same data and seed give the same rows in the same order."""
        with ExitStack() as stack:
            domain = read_sources(self._data.sources, stack.enter_context(Spool()), self._watch, self._loader)
            self._note_faults(domain)
            chosen = self._chosen(domain)
            train, held_out = Collector(), Collector()
            self._collect(domain, (place for place in range(len(domain.spool)) if place not in chosen), train)
            self._collect(domain, sorted(chosen), held_out)
            if self._data.eval_sources:
                other = read_sources(self._data.eval_sources, stack.enter_context(Spool()), self._watch)
                self._note_faults(other)
                self._collect(other, range(len(other.spool)), held_out)
            num_domain = len(train)
            if self._data.general and self._data.general_share:
                general = read_sources(self._data.general, stack.enter_context(Spool()), self._watch)
                self._note_faults(general)
                self._replay(general, domain.num_records, train)
        self._require(train, held_out)
        return Prepared(train.rows(), held_out.rows() if len(held_out) else None, len(train) - num_domain, self._counts)

    def measured(self, ewc: Ewc) -> TokenRows:
        """General rows that are not trained, in random order, as many as the recipe wants or there are."""
        with Spool() as spool:
            loaded, rows = read_sources(ewc.sources, spool, self._watch), Collector()
            order = list(range(len(loaded.spool)))
            Random(self._seed).shuffle(order)
            for place in order:
                if len(rows) < ewc.num_rows:
                    self._take(loaded.row(place), rows, 0)
        if not len(rows):
            raise RecipeUnusable("ewc: its files have no row that can be measured")
        return rows.rows()

    def _chosen(self, domain: Loaded) -> set[int]:
        """Places of the rows that are held out for evaluation."""
        num_rows = len(domain.spool)
        share = self._data.held_out_share(num_rows)
        if self._data.eval_sources or not share:
            return set()
        require_rest(self._data.eval_rows, num_rows)
        return held_out_of(domain, domain.rows(), share, self._seed, self._watch)[0]

    def _note_faults(self, loaded: Loaded) -> None:
        for fault in loaded.faults:
            self._counts.add("unreadable", f"record {fault.number}: {fault.why}")

    def _collect(self, loaded: Loaded, places: Iterable[int], into: Collector, first_number: int = 0) -> None:
        for place in self._watch.follow("tokenise", places, None):
            self._take(loaded.row(place), into, first_number)

    def _replay(self, general: Loaded, first_number: int, train: Collector) -> None:
        """General rows in random order until they make up their share of all that is trained."""
        num_domain, share = len(train), self._data.general_share
        wanted = num_general_of(num_domain, share)
        order = list(range(len(general.spool)))
        Random(self._seed).shuffle(order)
        for place in order:
            if len(train) - num_domain == wanted:
                return
            self._take(general.row(place), train, first_number)
        there = len(train) - num_domain
        if there < wanted:
            raise RecipeUnusable(general_words(share, num_domain, wanted, there))

    def _take(self, row: Row, into: Collector, first_number: int) -> None:
        rendered = self._rendered(row)
        if rendered is not None and not into.add(first_number + row.number, rendered):
            self._counts.add("masked_out", f"row {row.number}")

    def _rendered(self, row: Row) -> Rendered | None:
        """As it is trained; None where it is left out."""
        try:
            rendered: Rendered = self._renderer.render(row)
        except DataUnusable as exc:
            self._counts.add("refused", f"row {row.number}: {exc}")
            return None
        if not self._data.assistant_only:
            rendered = Rendered(rendered.ids, (True,) * len(rendered))
        return rendered if len(rendered) <= self._data.max_length else self._shortened(row, rendered)

    def _shortened(self, row: Row, rendered: Rendered) -> Rendered | None:
        limit = self._data.max_length
        if self._data.too_long == "raise":
            raise RecipeUnusable(
                f"row {row.number} has {len(rendered):,} tokens, sequence_len is {limit:,}: raise it, or drop or cut such rows with "
                "excess_length_strategy: drop or truncate"
            )
        is_cut = self._data.too_long == "truncate"
        self._counts.add("truncated" if is_cut else "too_long", f"row {row.number} of {len(rendered):,} tokens")
        return Rendered(rendered.ids[:limit], rendered.is_trained[:limit]) if is_cut else None

    def _require(self, train: Collector, held_out: Collector) -> None:
        wants_eval = bool(self._data.eval_sources or self._data.eval_share or self._data.eval_rows)
        for rows, is_wanted, name in ((train, True, "train"), (held_out, wants_eval, "evaluate")):
            if is_wanted and not len(rows):
                reasons = "; ".join(self._counts.notes(self._data.max_length)) or "the files have none"
                raise RecipeUnusable(f"there is no row to {name}: {reasons}")
