"""A publication as it is shown: a bar and stages on a terminal, lines elsewhere, one JSON object per line for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from backends.plan import size_words

EVENT_EVERY_S = 1.0
LINE_EVERY_S = 5.0


class View(Protocol):
    """Shows what is sent and what the gateway tells, until it is closed."""

    def sent(self, num_bytes: int, of_bytes: int) -> None: ...
    def told(self, event: Mapping[str, Any]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(is_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> View:
    """JSON goes to standard output, all else to standard error."""
    stream = err or sys.stderr
    if is_json:
        return Events(out or sys.stdout)
    return Bar(stream) if stream.isatty() else Lines(stream)


class _Closing:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(_Closing):
    """For logs: a line for every stage, and one every few seconds within a long one."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage = ""
        self._shown_s = clock()

    def sent(self, num_bytes: int, of_bytes: int) -> None:
        if num_bytes == of_bytes:
            self._write(f"  upload: {size_words(of_bytes)} sent")
        elif self._clock() - self._shown_s >= LINE_EVERY_S:
            self._write(f"  upload: {size_words(num_bytes)} of {size_words(of_bytes)}")

    def told(self, event: Mapping[str, Any]) -> None:
        stage = str(event.get("stage", ""))
        if stage != self._stage or self._clock() - self._shown_s >= LINE_EVERY_S:
            self._stage = stage
            self._write(f"  {words(event)}")

    def _write(self, text: str) -> None:
        self._shown_s = self._clock()
        print(text, file=self._stream, flush=True)


class Bar:
    """For people at a terminal: how much is sent, then how far the reference is, else that it goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(),
            console=Console(file=stream, highlight=False), transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._stage = ""

    def sent(self, num_bytes: int, of_bytes: int) -> None:
        self._show("upload", f"upload ({size_words(of_bytes)})", num_bytes, of_bytes)

    def told(self, event: Mapping[str, Any]) -> None:
        self._show(str(event.get("stage", "")), words(event), event.get("done"), event.get("total"))

    def _show(self, stage: str, text: str, done: int | None, total: int | None) -> None:
        if self._task is None or stage != self._stage:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage = stage
            self._task = self._progress.add_task(text, total=None)
        self._progress.update(self._task, description=text, completed=done or 0, total=total or None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Events(_Closing):
    """For programs: `event` first; of the upload one a second."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_s = clock()

    def sent(self, num_bytes: int, of_bytes: int) -> None:
        if num_bytes < of_bytes and self._clock() - self._shown_s < EVENT_EVERY_S:
            return
        self._shown_s = self._clock()
        self.told({"event": "progress", "stage": "upload", "done": num_bytes, "total": of_bytes})

    def told(self, event: Mapping[str, Any]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)


def words(event: Mapping[str, Any]) -> str:
    """One line of one stage."""
    text = f"{event.get('stage', '')}: {event.get('text', '')}".removesuffix(": ")
    total = event.get("total")
    return f"{text} ({event.get('done', 0)} of {total})" if isinstance(total, int) and total > 1 else text
