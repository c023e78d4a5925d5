"""Replies in a file of JSON lines beside the rows: `OUT.vary`. Its first line holds the settings that they were asked for with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetune.dataset.errors import DataUnusable
from finetune.variants.prompting import Pair


@dataclass(frozen=True, slots=True)
class Reply:
    request: int
    """Its number, from 0 on."""
    seeds: tuple[int, ...]
    """Rows that it showed."""
    num_tokens: int
    """Of prompts and answers, those of answers asked apart included."""
    pairs: tuple[Pair, ...]
    num_unusable: int
    said: str = ""
    """How it began, where nothing could be read from it."""


class Journal:
    """A context manager. `replies`: what was there, in its order. A line that is not whole, as a crash leaves it, is passed over."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises DataUnusable where the file is of other settings."""
        self.path = path
        lines = path.read_bytes().splitlines() if path.exists() else []
        if lines and (found := _parsed(lines[0])) != {"settings": dict(settings)}:
            raise DataUnusable(
                f"{path} is of another run ({_difference(found, settings)}): remove it, or name another --out"
            )
        self.replies = [reply for line in lines[1:] if (reply := _reply(line)) is not None]
        self._file = path.open("ab", buffering=0)
        if not lines:
            self._write({"settings": dict(settings)})
        elif not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def add(self, reply: Reply) -> None:
        self.replies.append(reply)
        self._write(asdict(reply))

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None


def _reply(line: bytes) -> Reply | None:
    told = _parsed(line)
    try:
        pairs = tuple(Pair(str(pair["question"]), str(pair["answer"])) for pair in told["pairs"])
        return Reply(
            int(told["request"]), tuple(told["seeds"]), int(told["num_tokens"]), pairs, int(told["num_unusable"]), str(told["said"])
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _difference(found: Any, settings: Mapping[str, Any]) -> str:
    had = found.get("settings") if isinstance(found, dict) else None
    if not isinstance(had, dict):
        return "it is no journal"
    return ", ".join(f"{name} was {had.get(name)!r}" for name in settings if had.get(name) != settings[name]) or "older"
