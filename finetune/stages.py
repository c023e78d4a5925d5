"""How far a command is, for whoever watches: a bar on a terminal, lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from finetune.jsonchild import Tell

LINE_EVERY_S = 5.0


@contextmanager
def shown(is_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> Iterator[Tell]:
    """While the block runs. JSON goes to standard output, all else to standard error."""
    stream = err or sys.stderr
    if is_json:
        yield Events(out or sys.stdout).tell
    elif stream.isatty():
        with _bar(stream) as tell:
            yield tell
    else:
        yield Lines(stream).tell


class Events:
    """One object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def tell(self, stage: str, text: str, done: int, total: int) -> None:
        event = {"event": "progress", "stage": stage, "text": text, "done": done, "total": total}
        print(json.dumps(event), file=self._stream, flush=True)


class Lines:
    """For logs: a line for every stage, and one every few seconds within a long one."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage = ""
        self._shown_s = clock()

    def tell(self, stage: str, text: str, done: int, total: int) -> None:
        if stage == self._stage and self._clock() - self._shown_s < LINE_EVERY_S:
            return
        self._stage, self._shown_s = stage, self._clock()
        print(f"  {words(stage, text, done, total)}", file=self._stream, flush=True)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=stream, highlight=False), transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(stage: str, text: str, done: int, total: int) -> None:
            progress.update(task, description=words(stage, text, 0, 0), completed=done, total=total or None)

        yield tell


def words(stage: str, text: str, done: int, total: int) -> str:
    """One line of one stage."""
    line = f"{stage}: {text}".removesuffix(": ")
    return f"{line} ({done} of {total})" if total > 1 else line
