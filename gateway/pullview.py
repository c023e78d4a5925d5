"""A pull as it is shown: a bar on a terminal, a line every few seconds elsewhere, one JSON object per line for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from backends.hub.events import (
    Advanced,
    Checking,
    Downloading,
    Event,
    Finished,
    Kept,
    Listed,
    Retrying,
    Stored,
    Waiting,
)
from backends.plan import size_words

LINE_EVERY_S = 5.0
EVENT_EVERY_S = 1.0
_NAMES: dict[type[Event], str] = {
    Waiting: "waiting", Listed: "pulling", Checking: "checking", Downloading: "downloading", Advanced: "progress",
    Retrying: "retrying", Stored: "stored", Kept: "kept", Finished: "pulled",
}  # fmt: skip


class View(Protocol):
    """Shows events until it is closed."""

    def __call__(self, event: Event) -> None: ...
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


class Lines:
    """For logs."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._start_s = self._shown_s = clock()
        self._start_bytes = self._size_bytes = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Downloading):
            self._start_s, self._start_bytes, self._size_bytes = self._clock(), event.offset_bytes, event.size_bytes
        if isinstance(event, Advanced):
            if self._clock() - self._shown_s < LINE_EVERY_S:
                return
            self.write(self._progress(event))
        elif text := words(event):
            self.write(text)

    def write(self, text: str) -> None:
        self._shown_s = self._clock()
        print(text, file=self._stream, flush=True)

    def _progress(self, event: Advanced) -> str:
        rate = (event.done_bytes - self._start_bytes) / max(1e-3, self._clock() - self._start_s)
        left_bytes = self._size_bytes - event.done_bytes
        left = f", {_duration(left_bytes / rate)} left" if rate > 0 else ""
        percent = 100 * event.done_bytes // max(1, self._size_bytes)
        of = f"{size_words(event.done_bytes)} of {size_words(self._size_bytes)} ({percent} %)"
        return f"  {event.path}: {of}, {size_words(int(rate))}/s{left}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Bar:
    """For people at a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), TimeRemainingColumn(), console=Console(file=stream, highlight=False), transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Downloading):
            self._begin(event)
        elif isinstance(event, Advanced):
            if self._task is not None:
                self._progress.update(self._task, completed=event.done_bytes)
            return
        elif isinstance(event, Stored):
            self._end()
        if text := words(event):
            self._progress.console.print(text, markup=False, soft_wrap=True)

    def _begin(self, event: Downloading) -> None:
        self._end()
        self._task = self._progress.add_task(event.path, total=event.size_bytes, completed=event.offset_bytes)

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Events:
    """For programs: `event` first; `progress` at most once a second."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_s = clock()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Advanced):
            if self._clock() - self._shown_s < EVENT_EVERY_S:
                return
            self._shown_s = self._clock()
        print(json.dumps({"event": _NAMES[type(event)], **asdict(event)}), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def words(event: Event) -> str:
    """One line for people; empty where it is not worth one."""
    match event:
        case Waiting():
            pid = f" (pid {event.pid})" if event.pid else ""
            return f"another process{pid} is pulling {event.name}: waiting for it"
        case Listed():
            return _listed_words(event)
        case Checking():
            return f"  {event.path}: checking the {size_words(event.num_bytes)} that are here"
        case Retrying():
            where = f"  {event.path}: " if event.path else ""
            return f"{where}{event.reason}; again{f' in {event.delay_s:.0f} s' if event.delay_s >= 1 else ''}"
        case Stored():
            return f"  {event.path}: {size_words(event.size_bytes)}, checksum right"
        case Kept():
            return f"the files of an older commit stay, a running gateway serves them: {event.folder}"
        case Finished(is_new=False):
            return f"{event.name} is here already, and nothing newer at the hub"
    return ""


def _listed_words(event: Listed) -> str:
    files = "1 file" if event.num_files == 1 else f"{event.num_files} files"
    here = f", {size_words(event.present_bytes)} of it here already" if event.present_bytes else ""
    moved = f" ({event.repo} now)" if not event.name.startswith(f"{event.repo}:") else ""
    return f"pulling {event.name}{moved}, {event.why}: {files}, {size_words(event.total_bytes)}{here}, commit {event.commit[:12]}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
