"""Files to rows: read, recognised, and kept on disk for the passes that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from finetune.dataset.errors import DataUnusable
from finetune.dataset.formats import Columns, NoForm, choose_columns, describe, to_row
from finetune.dataset.json_stream import Unreadable
from finetune.dataset.progress import Watch
from finetune.dataset.reading import Source
from finetune.dataset.row import Row
from finetune.dataset.spool import Spool
from finetune.dataset.text import shown

_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that is no row: `name` as in the table of checks."""

    name: str
    number: int
    why: str
    text: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file was recognised as."""

    path: str
    kind: str
    encoding: str
    size_bytes: int
    first_row: int
    num_rows: int
    evidence: tuple[str, ...]


@dataclass(slots=True)
class Loaded:
    """Rows of some files in a spool, and what could not become one. Numbers run on from file to file."""

    spool: Spool
    files: list[FileFacts] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    num_records: int = 0

    def row(self, index: int) -> Row:
        number, record = self.spool[index]
        return to_row(record, number)

    def rows(self) -> Iterator[Row]:
        """All of them, in order; none may be asked for by index meanwhile."""
        for number, record in self.spool:
            yield to_row(record, number)


def load(paths: Sequence[Path], spool: Spool, columns: Mapping[str, str], watch: Watch) -> tuple[Loaded, Iterator[Row]]:
    """What is being loaded, and its rows as they are read: the first is complete when the second has ended. Raises DataError."""
    return load_each([(path, columns) for path in paths], spool, watch)


def load_each(
    files: Sequence[tuple[Path, Mapping[str, str]]], spool: Spool, watch: Watch
) -> tuple[Loaded, Iterator[Row]]:
    """`load`, with columns of its own for each file."""
    loaded = Loaded(spool)
    return loaded, chain.from_iterable(_read(Source(path), loaded, columns, watch) for path, columns in files)


def load_all(paths: Sequence[Path], spool: Spool, columns: Mapping[str, str], watch: Watch) -> Loaded:
    """Raises DataError."""
    loaded, rows = load(paths, spool, columns, watch)
    for _ in rows:
        pass
    return loaded


def _read(source: Source, loaded: Loaded, given: Mapping[str, str], watch: Watch) -> Iterator[Row]:
    records = source.records()
    sample = list(islice(records, _SAMPLE))
    objects = [record for record in sample if isinstance(record, dict)]
    if not objects:
        why = next((f": {record.why}" for record in sample if isinstance(record, Unreadable)), "")
        raise DataUnusable(f"{source.path}: none of its first records is an object with fields{why}")
    columns = choose_columns(objects, given, str(source.path))
    forms: Counter[str] = Counter()
    first = loaded.num_records + 1
    for record in watch.follow(f"read {source.path.name}", chain(sample, records), None):
        loaded.num_records += 1
        row = _row(record, loaded, columns)
        if row is not None:
            forms[row.form] += 1
            yield row
    loaded.files.append(
        FileFacts(
            str(source.path), source.kind, source.encoding, source.size_bytes, first, loaded.num_records - first + 1,
            tuple(describe(forms, objects, columns)),
        )
    )  # fmt: skip


def _row(record: Any, loaded: Loaded, columns: Columns) -> Row | None:
    number = loaded.num_records
    if isinstance(record, Unreadable):
        loaded.faults.append(Fault("unreadable", number, record.why, shown(record.text)))
        return None
    if isinstance(record, dict):
        record = columns.apply(record)
    try:
        row = to_row(record, number)
    except NoForm as exc:
        loaded.faults.append(Fault("schema", number, str(exc), shown(str(record))))
        return None
    loaded.spool.append((number, row.record))
    return row
