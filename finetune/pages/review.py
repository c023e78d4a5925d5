"""Review of rows as its page sees it: each is kept, edited or dropped, and what is decided is in a journal.

{"format": "forgegate-review", "file", "content": sha256 of the file, "columns", "at"}
{"row": number, "do": "keep" | "drop" | "open"}
{"row": number, "do": "edit", "record": {...}}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.artifacts import atomic_writer
from finetune.dataset.fix import line_of
from finetune.dataset.formats import NoForm, to_row
from finetune.pages.journal import Journal
from finetune.pages.rows import Rows, Unfit, fields_of
from finetune.pages.server import Json, Refused

FORMAT = "forgegate-review"
KEEP, DROP, EDIT, OPEN = "keep", "drop", "edit", "open"


class Review:
    """The server's app. `is_flagged_only`: rows of which the doctor says nothing are kept without being shown."""

    files: tuple[str, ...] = ("review.html", "review.js", "page.js", "page.css", "theme.css")

    def __init__(self, rows: Rows, journal: Journal, out: Path, is_flagged_only: bool = False) -> None:
        self._rows, self._journal, self.out = rows, journal, out
        shown = [n for n in range(1, rows.count + 1) if not is_flagged_only or n in rows.flagged]
        self._shown = shown
        self._decided: dict[int, str] = {}
        self._edited: dict[int, dict[str, Any]] = {}
        self._is_finished = False
        self.num_written: int | None = None
        """Rows of what was written at last; None where nothing was."""
        for entry in journal.entries:
            self._apply(entry)

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    def summary(self) -> Json:
        """How many rows are what, and what was written."""
        counts = Counter(map(self._decision, self._shown))
        return {
            "total": len(self._shown), "kept": counts[KEEP], "edited": counts[EDIT], "dropped": counts[DROP],
            "open": counts[OPEN], "out": str(self.out), "written": self.num_written,
        }  # fmt: skip

    # What the page asks -----------------------------------------------------------------------------------------------

    def view(self, query: Mapping[str, str]) -> Json:
        """`row`: that one; else the first that is open."""
        asked = query.get("row", "")
        if not asked:
            return self._view(self._next_open(0))
        if not (asked.isascii() and asked.isdigit()) or int(asked) not in self._shown:
            raise Refused(f"there is no row {asked} to review")
        return self._view(int(asked))

    def act(self, name: str, body: Json) -> Json:
        actions: dict[str, Callable[[Json], Json]] = {
            "decide": self._decide,
            "edit": self._edit,
            "finish": self._finish,
        }
        if name not in actions:
            raise Refused("there is no such action")
        return actions[name](body)

    def _decide(self, body: Json) -> Json:
        number, decision = self._number(body), body.get("do")
        if decision not in (KEEP, DROP, OPEN):
            raise Refused("keep, drop or open it")
        if decision == KEEP and not self._rows.is_row(number):
            raise Refused("it is no row: edit it, or drop it")
        self._keep({"row": number, "do": decision})
        return self._view(number if decision == OPEN else self._next_open(number))

    def _edit(self, body: Json) -> Json:
        number = self._number(body)
        try:
            if isinstance(text := body.get("json"), str):
                record = self._rows.parsed(text, number)
            elif isinstance(texts := body.get("texts"), list) and all(isinstance(one, str) for one in texts):
                record = self._rows.retold(self._record(number), number, texts)
            else:
                raise Refused("there is no text to save")
        except (Unfit, NoForm) as exc:
            raise Refused(f"not saved: {exc}") from exc
        self._keep({"row": number, "do": EDIT, "record": record})
        return self._view(self._next_open(number))

    def _finish(self, body: Json) -> Json:
        rest = body.get("rest", "")
        if self.summary()["open"] and rest not in (KEEP, DROP):
            raise Refused("rows are undecided: keep them, or leave them out")
        self.write(rest == KEEP)
        self._is_finished = True
        return {**self.summary(), "state": "finished"}

    def _number(self, body: Json) -> int:
        number = body.get("row")
        if not isinstance(number, int) or isinstance(number, bool) or number not in self._shown:
            raise Refused(f"there is no row {number} to review")
        return number

    # What is decided --------------------------------------------------------------------------------------------------

    def write(self, is_rest_kept: bool = False) -> None:
        """All that is kept, in the file's order, whole or not at all. Raises OSError."""
        count = 0
        with atomic_writer(self.out) as file:
            for record in self._kept(is_rest_kept):
                file.write(line_of(record))
                count += 1
        self.num_written = count

    def _kept(self, is_rest_kept: bool) -> Iterator[dict[str, Any]]:
        shown = set(self._shown)
        for number in range(1, self._rows.count + 1):
            decision = self._decision(number) if number in shown else KEEP
            if decision == EDIT:
                yield self._edited[number]
            elif self._rows.is_row(number) and (decision == KEEP or (decision == OPEN and is_rest_kept)):
                yield self._rows.record(number)

    def _decision(self, number: int) -> str:
        return self._decided.get(number, OPEN)

    def _record(self, number: int) -> Any:
        return self._edited.get(number) or self._rows.record(number)

    def _keep(self, entry: Mapping[str, Any]) -> None:
        self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        number = entry["row"]
        self._decided[number] = entry["do"]
        if entry["do"] == EDIT:
            self._edited[number] = entry["record"]
        elif entry["do"] == OPEN:
            self._edited.pop(number, None)
        elif entry["do"] == KEEP and number in self._edited:
            self._decided[number] = EDIT  # kept as it was edited before

    # What the page shows ----------------------------------------------------------------------------------------------

    def _next_open(self, after: int) -> int | None:
        """The next one below, else the first; None where all is decided."""
        unsure = [number for number in self._shown if self._decision(number) == OPEN]
        return next((number for number in unsure if number > after), unsure[0] if unsure else None)

    def _view(self, number: int | None) -> Json:
        if number is None:
            last = self._shown[-1] if self._shown else None
            return {**self.summary(), "state": "done", "last": last}
        place = self._shown.index(number)
        edited = self._edited.get(number)
        return {
            **self.summary(), "state": "row", "row": number, "place": place + 1,
            "previous": self._shown[place - 1] if place else None,
            "next": self._shown[place + 1] if place + 1 < len(self._shown) else None,
            "decision": self._decision(number), "is_edited": edited is not None,
            "notes": [
                {"severity": note.severity, "name": note.name, "why": note.why} for note in self._rows.notes(number, edited)
            ],
            **_content(self._record(number), number),
        }  # fmt: skip


def _content(record: Any, number: int) -> Json:
    """Turns to read, texts to edit, and the record itself."""
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, indent=1)
    try:
        row = to_row(record, number)
    except NoForm:
        return {"form": "", "turns": [], "fields": [], "json": text}
    return {
        "form": row.form, "json": text,
        "turns": [{"role": turn.role, "text": turn.text, "has_calls": turn.has_calls} for turn in row.turns],
        "fields": [{"name": one.name, "text": one.text} for one in fields_of(row)],
    }  # fmt: skip
