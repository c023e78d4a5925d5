"""Recorded traffic: Mooncake's JSONL, Azure's and BurstGPT's CSV, as rows of due time, lengths and shared blocks."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.traffic.errors import WorkloadError

BLOCK_TOKENS = 512
"""Tokens that one of Mooncake's hash ids stands for; only a prompt's last block may hold fewer."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request. `due_s` counts from the trace's first one."""

    due_s: float
    input_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()
    """Equal ids stand for equal blocks of the prompt, from its beginning; empty where the trace does not say."""
    session: int | None = None
    """Equal numbers are one conversation; its turns hold what was said before already."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Rows by ascending due time."""

    name: str
    rows: tuple[TraceRow, ...]
    num_left_out: int = 0
    """Rows without an answer: recorded failures."""

    def scaled(self, factor: float) -> "Trace":
        """All gaps multiplied: 0.5 replays twice as fast."""
        rows = tuple(replace(row, due_s=row.due_s * factor) for row in self.rows)
        return replace(self, rows=rows)

    def cut(self, num: int | None, end_s: float | None) -> "Trace":
        """The first `num` rows that are due before `end_s`."""
        rows = self.rows if end_s is None else tuple(row for row in self.rows if row.due_s < end_s)
        return replace(self, rows=rows[:num])


def read_trace(path: Path, kind: str) -> Trace:
    """A trace file in one of FORMATS. Raises WorkloadError with file and line, also for one that holds no request."""
    read = FORMATS.get(kind)
    if read is None:
        raise WorkloadError(f"{kind!r} is no trace format: one of {', '.join(FORMATS)}")
    try:
        rows = list(read(path))
    except OSError as exc:
        raise WorkloadError(f"cannot read trace {path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise WorkloadError(f"{path}: not UTF-8 text: {exc}") from exc
    answered = sorted((row for row in rows if row.output_tokens), key=lambda row: row.due_s)
    if not answered:
        raise WorkloadError(f"{path} holds no request")
    first_s = answered[0].due_s
    return Trace(
        path.name, tuple(replace(row, due_s=row.due_s - first_s) for row in answered), len(rows) - len(answered)
    )


def _mooncake(path: Path) -> Iterator[TraceRow]:
    """`{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}` per line."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                with _Where(path, number):
                    yield _mooncake_row(json.loads(line))


def _mooncake_row(row: Any) -> TraceRow:
    if not isinstance(row, dict):
        raise WorkloadError("not a JSON object")
    num_input, ids = _count(row, "input_length"), row.get("hash_ids", [])
    if not isinstance(ids, list) or not all(isinstance(each, int) for each in ids):
        raise WorkloadError("hash_ids is not a list of whole numbers")
    if ids and not (len(ids) - 1) * BLOCK_TOKENS < num_input <= len(ids) * BLOCK_TOKENS:
        raise WorkloadError(f"{len(ids)} hash_ids of {BLOCK_TOKENS} tokens do not fit an input_length of {num_input}")
    return TraceRow(_number(row, "timestamp") / 1e3, num_input, _count(row, "output_length"), tuple(ids))


def _azure(path: Path) -> Iterator[TraceRow]:
    """`TIMESTAMP,ContextTokens,GeneratedTokens`."""
    for number, row in _csv(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        with _Where(path, number):
            at = datetime.fromisoformat(str(row["TIMESTAMP"]))
            at_s = (at - datetime(2020, 1, 1, tzinfo=at.tzinfo)).total_seconds()
            yield TraceRow(at_s, _count(row, "ContextTokens"), _count(row, "GeneratedTokens"))


def _burstgpt(path: Path) -> Iterator[TraceRow]:
    """`Timestamp` (s), `Request tokens`, `Response tokens`, and `Session ID` in newer ones."""
    sessions: dict[str, int] = {}
    for number, row in _csv(path, ("Timestamp", "Request tokens", "Response tokens")):
        with _Where(path, number):
            counts = _count(row, "Request tokens"), _count(row, "Response tokens")
            name = row.get("Session ID")
            session = sessions.setdefault(name, len(sessions)) if name else None
            yield TraceRow(_number(row, "Timestamp"), *counts, session=session)


FORMATS: Mapping[str, Callable[[Path], Iterator[TraceRow]]] = {
    "mooncake": _mooncake,
    "azure": _azure,
    "burstgpt": _burstgpt,
}


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows, whose columns go by name."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise WorkloadError(
                f"{path}:1: no column {missing[0]!r}; its header is {', '.join(reader.fieldnames or ())!r}"
            )
        for row in reader:
            yield reader.line_num, row


class _Where:
    """Puts file and line before what is wrong there."""

    def __init__(self, path: Path, line: int) -> None:
        self._where = f"{path}:{line}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, json.JSONDecodeError):
            raise WorkloadError(f"{self._where}: not JSON: {error}") from error
        if isinstance(error, ValueError):
            raise WorkloadError(f"{self._where}: {error}") from error


def _number(row: Mapping[str, Any], name: str) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError) as exc:
        raise WorkloadError(f"{name} is not a number: {row.get(name)!r}") from exc
    if not math.isfinite(value):
        raise WorkloadError(f"{name} is not a number: {row[name]!r}")
    return value


def _count(row: Mapping[str, Any], name: str) -> int:
    value = _number(row, name)
    if value < 0 or value != int(value):
        raise WorkloadError(f"{name} is not a number of tokens: {row[name]!r}")
    return int(value)
