"""Files to records, whatever kind they are of. The kind is told by content where the name does not say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from finetune.dataset.encoding import Decoder
from finetune.dataset.errors import DataUnusable
from finetune.dataset.json_stream import Scanner, read_lines
from finetune.dataset.tables import read_csv, read_parquet, read_xlsx

_KINDS = {
    ".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "CSV", ".txt": "", ".xlsx": "XLSX", ".xlsm": "XLSX",
    ".parquet": "Parquet", ".pq": "Parquet",
}  # fmt: skip
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"


class Source:
    """One file. `kind`, and after reading `encoding`, say what it turned out to be."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataUnusable(
                f"{path}: {'it is a folder; name its files' if path.is_dir() else 'there is no such file'}"
            )
        self.path = path
        self.kind = _kind(path)
        self._decoder = Decoder()

    @property
    def encoding(self) -> str:
        """Of a text; empty for workbooks and Parquet, which have but one."""
        return self._decoder.words if self.kind in ("JSON", "JSONL", "CSV") else ""

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def records(self) -> Iterator[Any]:
        """Values as they stand in the file, mostly dicts; what cannot be parsed is an Unreadable. Raises DataError."""
        if self.kind == "XLSX":
            return read_xlsx(self.path)
        if self.kind == "Parquet":
            return read_parquet(self.path)
        lines = self._decoder.read(self.path)
        if self.kind == "CSV":
            return read_csv(lines, self.path)
        if self.kind == "JSONL":
            return read_lines(lines)
        return self._scan(lines)

    def _scan(self, lines: Iterator[str]) -> Iterator[Any]:
        try:
            yield from Scanner(lines).records()
        except DataUnusable as exc:
            raise DataUnusable(f"{self.path}: {exc}") from exc


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataUnusable(f"{path} is empty")
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.startswith(_OLD_EXCEL):
        raise DataUnusable(
            f"{path}: it is a workbook of old Excel (.xls) or one with a password: save it as .xlsx without one"
        )
    if head.startswith(b"PK\x03\x04"):
        return "XLSX"
    said = _KINDS.get(path.suffix.lower())
    if said is None:
        raise DataUnusable(f"{path}: read are .json, .jsonl, .csv, .tsv, .xlsx and .parquet")
    if said in ("XLSX", "Parquet"):
        raise DataUnusable(f"{path}: it is no {said} file")
    if said == "CSV":
        return said
    return _json_kind(path)


def _json_kind(path: Path) -> str:
    """JSONL where most of the first lines are records of their own, whatever the name says."""
    lines = list(islice((line for line in Decoder().read(path) if line.strip()), 50))
    if lines[0].lstrip()[0] not in "[{":
        return "JSON" if path.suffix.lower() == ".json" else "JSONL"
    objects = [value for value in read_lines(iter(lines)) if isinstance(value, dict)]
    if len(lines) == 1 and objects and _holds_records(objects):
        return "JSON"
    return "JSONL" if 2 * len(objects) >= len(lines) else "JSON"


def _holds_records(values: Iterable[Any]) -> bool:
    """{"data": [{...}, ...]}"""
    lists = chain.from_iterable(value.items() for value in values if isinstance(value, dict))
    names = ("messages", "conversations", "history", "tools", "prompt", "completion")
    return any(
        isinstance(each, list) and each and isinstance(each[0], dict) and name not in names for name, each in lists
    )
