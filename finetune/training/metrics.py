"""RUN/metrics.jsonl: the steps and evaluations of a run, over all its attempts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path

NAME = "metrics.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """Lines that are whole; an attempt that was killed may leave half of one at the end."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            found.append(entry)
    return found


def cut(path: Path, step: int) -> list[dict[str, Any]]:
    """Leave out what an attempt told after the step from which the next one goes on; what is left."""
    kept = [entry for entry in read(path) if entry["step"] <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
    return kept


def append(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(entry))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
