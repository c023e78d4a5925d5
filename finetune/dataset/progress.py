"""How far it is, for whoever watches: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
_EVERY = 256


class Watch(Protocol):
    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]: ...


class Unwatched:
    def follow(self, what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
        return iter(items)


@contextmanager
def watch() -> Iterator[Watch]:
    """Bars on standard error while the block runs."""
    if not sys.stderr.isatty():
        yield Unwatched()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)


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
