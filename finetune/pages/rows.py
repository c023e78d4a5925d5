"""The rows of a file as a person reviews them: with what the doctor says of each, and edits read as the doctor reads rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from finetune.dataset.doctor import Examination, Options, examine, faults_of
from finetune.dataset.fix import texts_of
from finetune.dataset.formats import Columns, NoForm, to_row
from finetune.dataset.json_stream import Unreadable
from finetune.dataset.progress import Watch
from finetune.dataset.reading import Source
from finetune.dataset.row import Place, Row, rewritten
from finetune.dataset.row_checks import Case
from finetune.dataset.spool import Spool
from finetune.dataset.tokens import Estimate

NEEDED = ("empty", "role_order")
"""Checks that an edited row must pass; what others say of it is shown."""


class Unfit(Exception):
    """An edit that is no row; the message says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a check says. `severity`: error or warning."""

    severity: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Field:
    """A text of a row that can be edited."""

    name: str
    place: Place
    text: str


class Rows:
    """Numbers count from 1 in the order of the file; records that are no rows have one too. Raises DataError, OSError."""

    def __init__(self, path: Path, columns: Mapping[str, str], spool: Spool, watch: Watch) -> None:
        self.found = examine([path], spool, Options(columns=columns), watch)
        self.count = self.found.loaded.num_records
        self._places = {number: place for place, (number, _) in enumerate(islice(spool, self.found.num_rows))}
        self._faults = {fault.number: fault for fault in self.found.loaded.faults}
        self._broken = self._read_broken(path, columns)
        self._by_number = _notes_of(self.found)

    @property
    def flagged(self) -> frozenset[int]:
        """Rows that the doctor says something of."""
        return frozenset(self._by_number)

    def record(self, number: int) -> Any:
        """As it stands in the file, its fields named as the forms do; the text of what cannot be parsed, as far as it is known."""
        return self.found.loaded.spool[self._places[number]][1] if number in self._places else self._broken[number]

    def is_row(self, number: int) -> bool:
        return number in self._places

    def notes(self, number: int, edited: Any | None = None) -> list[Note]:
        """Of the row as it was read, or as it is now."""
        if edited is not None:
            return [Note(check.severity.value, check.name, why) for check, why in self._faults_of(edited, number)]
        if number in self._faults:
            fault = self._faults[number]
            return [Note("error", fault.name, fault.why)]
        told = {check.name: why for check, why in self._faults_of(self.record(number), number)}
        return [Note(one.severity, one.name, told.get(one.name, one.why)) for one in self._by_number.get(number, [])]

    def checked(self, record: Any, number: int) -> Row:
        """Raises Unfit."""
        try:
            row = to_row(record, number)
        except NoForm as exc:
            raise Unfit(str(exc)) from exc
        for check, why in faults_of(self._case(row)):
            if check.name in NEEDED:
                raise Unfit(why)
        return row

    def parsed(self, text: str, number: int) -> dict[str, Any]:
        """A record from its JSON. Raises Unfit."""
        try:
            record = json.loads(text)
        except ValueError as exc:
            raise Unfit(f"it is no JSON: {exc}") from exc
        except RecursionError as exc:
            raise Unfit("it is nested too deeply") from exc
        self.checked(record, number)
        return dict(record)

    def retold(self, record: Any, number: int, texts: Sequence[str]) -> dict[str, Any]:
        """The record with other texts, one for each of its fields. Raises Unfit."""
        row = to_row(record, number)
        fields = fields_of(row)
        if len(texts) != len(fields):
            raise Unfit(f"it has {len(fields)} texts, and {len(texts)} came: load the page again")
        changed = {one.place: text for one, text in zip(fields, texts, strict=True) if text != one.text}
        told = rewritten(row, changed)
        self.checked(told, number)
        return told

    def _faults_of(self, record: Any, number: int) -> Iterator[Any]:
        yield from faults_of(self._case(to_row(record, number)))

    def _case(self, row: Row) -> Case:
        """As the set's own rows are judged, with tokens estimated: an edited text has no count yet."""
        tokens, facts = Estimate(), self.found.facts
        return Case(row, facts.task, tokens.count(row.answer), tokens.length(row), self.found.options.max_length, facts)

    def _read_broken(self, path: Path, columns: Mapping[str, str]) -> dict[int, Any]:
        """Records that are no rows: the loader keeps only their beginnings."""
        if not self._faults:
            return {}
        last, renamed = max(self._faults), Columns({source: target for target, source in columns.items()})
        found: dict[int, Any] = {}
        for number, record in enumerate(islice(Source(path).records(), last), 1):
            if number in self._faults:
                if isinstance(record, Unreadable):
                    found[number] = record.text
                else:
                    found[number] = renamed.apply(record) if isinstance(record, dict) else record
        return found


def fields_of(row: Row) -> list[Field]:
    """In reading order; a text that the record has no field for, as that of a message with calls only, is none."""
    found = []
    roles = {turn.place: turn.role for turn in row.turns}
    for place, text in texts_of(row).items():
        if _has(row.record, place):
            name = place[-1] if isinstance(place[0], str) and len(place) == 1 else roles.get(place, place[-1])
            found.append(Field(str(name), place, text))
    return found


def _has(record: Any, place: Place) -> bool:
    for step in place:
        try:
            record = record[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _notes_of(found: Examination) -> dict[int, list[Note]]:
    """By row; what a check of one row says of it is looked up when it is shown."""
    notes: dict[int, list[Note]] = {}
    for findings in found.findings.values():
        check = findings.check
        for number, other in zip(findings.rows, findings.others, strict=True):
            why = f"{check.what} (row {other})" if other else check.what
            notes.setdefault(number, []).append(Note(check.severity.value, check.name, why))
    return notes
