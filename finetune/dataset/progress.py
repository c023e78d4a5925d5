"""How far it is, for whoever watches: bars on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
_EVERY = 256
LINE_EVERY_S = 5.0


class Watch(Protocol):
    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]: ...


class Unwatched:
    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
        return iter(items)


@contextmanager
def watch() -> Iterator[Watch]:
    """On standard error while the block runs."""
    if not sys.stderr.isatty():
        yield Lines(sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)


class Lines:
    """For logs: nothing of what is quick."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_s = clock()

    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
        of = f" of {total:,}" if total else ""
        for count, item in enumerate(items, 1):
            if count % _EVERY == 0 and self._clock() - self._shown_s >= LINE_EVERY_S:
                self._shown_s = self._clock()
                print(f"  {what}: {count:,}{of}", file=self._stream, flush=True)
            yield item


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
        task = self._progress.add_task(what, total=total)
        count = 0
        for count, item in enumerate(items, 1):
            if count % _EVERY == 0:
                self._progress.update(task, completed=count)
            yield item
        self._progress.update(task, completed=count, total=count)
