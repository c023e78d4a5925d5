"""What an attempt tells its parent: one JSON object a line on standard output, which nothing else may write to."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
PROGRESS_S = 0.5
_OUT, _ERR = 1, 2


class Events:
    """Silent in all processes but the first of several, and once nobody reads."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self._lock = threading.Lock()
        self.stage_name = "start"

    @classmethod
    def on_stdout(cls, is_main: bool) -> Events:
        """From now on what libraries print goes to standard error."""
        out = os.fdopen(os.dup(_OUT), "w", encoding="utf-8") if is_main else None
        os.dup2(_ERR, _OUT)
        sys.stdout = sys.stderr
        return cls(out)

    def tell(self, event: str, **fields: Any) -> None:
        """Numbers that are none are written as Python's json writes them: NaN, Infinity."""
        self.write({"event": event, **fields})

    def write(self, entry: dict[str, Any]) -> None:
        with self._lock:
            if self._out is None:
                return
            try:
                self._out.write(json.dumps(entry, ensure_ascii=False) + "\n")
                self._out.flush()
            except OSError:
                self._out = None

    def mute(self) -> None:
        self._out = None

    def stage(self, name: str, text: str) -> None:
        self.stage_name = name
        self.tell("stage", name=name, text=text)

    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
        """The items; tells twice a second how many have been taken. `what` is for readers of bars, here the stage names it."""
        told = time.monotonic()
        count = 0
        for count, item in enumerate(items, 1):
            yield item
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                self.tell("progress", stage=self.stage_name, done=count, total=total)
        self.tell("progress", stage=self.stage_name, done=count, total=count)
