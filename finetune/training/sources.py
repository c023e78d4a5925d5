"""A recipe's data sources to rows: files as they are recognised, or what the user's loader yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from finetune.dataset import formats
from finetune.dataset.formats import NoForm, to_row
from finetune.dataset.loading import Fault, Loaded, load_each
from finetune.dataset.progress import Watch
from finetune.dataset.row import Row
from finetune.dataset.spool import Spool
from finetune.dataset.text import shown
from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import Source

FORMS = {
    "alpaca": (formats.ALPACA,),
    "sharegpt": (formats.SHAREGPT, formats.CHATML),
    "chat_template": (formats.CHATML, formats.SHAREGPT),
    "completion": (formats.COMPLETION, formats.TEXT),
}
"""A recipe's name of a form -> what its records are recognised as."""
Loader = Callable[[list[str]], Iterable[Any]]
"""Takes the paths of the recipe's sources, yields records of any form that is known."""


def read_sources(sources: Sequence[Source], spool: Spool, watch: Watch, loader: Loader | None = None) -> Loaded:
    """All rows, in `spool`. Raises RecipeUnusable, DataError."""
    if loader is not None:
        return _read_hook(loader([str(source.path) for source in sources]), spool, watch)
    loaded, rows = load_each([(source.path, source.columns) for source in sources], spool, watch)
    for row in rows:
        # A file's facts are there once it has been read.
        _check_form(row, sources[len(loaded.files)])
    return loaded


def _check_form(row: Row, source: Source) -> None:
    """Raises RecipeUnusable where the recipe insists on another form."""
    if source.form and row.form not in FORMS.get(source.form, (source.form,)):
        raise RecipeUnusable(
            f"{source.path}: the recipe says type: {source.form}, row {row.number} is {row.form}; leave `type` out, and each "
            "record is taken as what it is"
        )


def _read_hook(records: Iterable[Any], spool: Spool, watch: Watch) -> Loaded:
    loaded = Loaded(spool)
    for record in watch.follow("read", _checked(records), None):
        loaded.num_records += 1
        try:
            row = to_row(record, loaded.num_records)
            spool.append((row.number, row.record))
        except (NoForm, ValueError) as exc:  # ValueError: a value of a kind that no file has
            loaded.faults.append(Fault("schema", loaded.num_records, str(exc), shown(str(record))))
    return loaded


def _checked(records: Iterable[Any]) -> Iterator[Any]:
    """Errors of the user's code, said as such."""
    try:
        yield from records
    except GeneratorExit:
        raise
    except Exception as exc:
        raise RecipeUnusable(f"the loader of the recipe failed: {type(exc).__name__}: {exc}") from exc
