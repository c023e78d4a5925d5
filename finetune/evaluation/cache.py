"""Answers that were given, by what was asked of whom: an evaluation that was cut off, or asks for more items, goes on from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetune.evaluation.items import Answer, Kind


def key_of(resolved: str, kind: Kind, request: Mapping[str, Any]) -> str:
    """Of everything that decides an answer."""
    text = json.dumps([resolved, kind, request], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Answers:
    """In memory, and in a file of JSON lines where `path` says one. A line that is not whole, as a crash leaves it, is passed over."""

    def __init__(self, path: Path | None = None) -> None:
        self._known: dict[str, Answer] = {}
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._known = _read(path) if path.exists() else {}
            self._file = path.open("ab", buffering=0)
            if path.stat().st_size and not _ends_whole(path):
                self._file.write(b"\n")

    def get(self, key: str) -> Answer | None:
        return self._known.get(key)

    def add(self, key: str, answer: Answer) -> None:
        self._known[key] = answer
        if self._file is not None:
            line = json.dumps({"key": key, "answer": asdict(answer)}, ensure_ascii=False) + "\n"
            self._file.write(line.encode("utf-8", "surrogatepass"))

    def __len__(self) -> int:
        return len(self._known)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _read(path: Path) -> dict[str, Answer]:
    known: dict[str, Answer] = {}
    for line in path.read_bytes().splitlines():
        try:
            told = json.loads(line.decode("utf-8", "surrogatepass"))
            known[str(told["key"])] = Answer(**{**told["answer"], "scores": tuple(told["answer"]["scores"])})
        except (ValueError, KeyError, TypeError):
            continue
    return known
