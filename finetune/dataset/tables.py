"""Tables as records: CSV, XLSX and Parquet, a few rows in memory at a time."""

from __future__ import annotations

import csv
import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from finetune.dataset.errors import DataLacksPackage, DataUnusable
from finetune.dataset.json_stream import Unreadable

Record = dict[str, Any]
_BATCH_ROWS = 1024


def read_csv(lines: Iterator[str], path: Path) -> Iterator[Record | Unreadable]:
    """Rows below the header, by column; the delimiter is the one of , ; tab | that the header has most of."""
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    head = list(itertools.islice(lines, 1))
    if not head:
        raise DataUnusable(f"{path} is empty")
    delimiter = max(",;\t|", key=head[0].count)
    reader = csv.reader(itertools.chain(head, _without_nul(lines)), delimiter=delimiter)
    names = _header(next(reader), path)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield Unreadable(f"no CSV: {exc}", "")
            continue
        if not any(cells):
            continue
        if len(cells) > len(names):
            yield Unreadable(f"{len(cells)} cells in a row of {len(names)} columns", delimiter.join(cells)[:200])
        else:
            yield dict(itertools.zip_longest(names, cells, fillvalue=""))


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    return (line.replace("\0", "") for line in lines)


def read_xlsx(path: Path) -> Iterator[Record | Unreadable]:
    """Rows of the first sheet that has any, below its first row that is not empty. Raises DataError."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as exc:
        raise _lacks("openpyxl", "XLSX", exc) from exc
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # styles and extensions that openpyxl does not keep are none of ours
            book = load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, OSError, KeyError, ValueError) as exc:
        raise DataUnusable(f"{path}: it is no XLSX workbook: {exc}") from exc
    try:
        for sheet in book.worksheets:
            rows = (
                cells for cells in sheet.iter_rows(values_only=True) if any(cell not in (None, "") for cell in cells)
            )
            head = next(rows, None)
            if head is not None:
                names = _header(["" if cell is None else str(cell) for cell in head], path)
                for cells in rows:
                    yield {name: _plain(cell) for name, cell in zip(names, cells, strict=False) if name}
                return
        raise DataUnusable(f"{path}: none of its sheets has a row")
    finally:
        book.close()


def read_parquet(path: Path) -> Iterator[Record | Unreadable]:
    """Raises DataError."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:
        raise _lacks("pyarrow", "Parquet", exc) from exc
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for record in batch.to_pylist():
                    yield {name: _plain(value) for name, value in record.items()}
    except (ArrowException, OSError) as exc:
        raise DataUnusable(f"{path}: it is no Parquet file: {str(exc).splitlines()[0]}") from exc


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataUnusable(f"{path}: its first row names no columns")
    return names


def _plain(value: Any) -> Any:
    """What JSON can hold; numbers, dates and bytes as their text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _lacks(package: str, kind: str, exc: ImportError) -> DataLacksPackage:
    return DataLacksPackage(
        f"{kind} files are read by {package}, which cannot be imported ({exc}): run `forgegate install trainer`"
    )
