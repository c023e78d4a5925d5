"""A run as it is shown: bars on a terminal, lines for logs, the events themselves for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from finetune.run.pace import Pace
from finetune.run.viewwords import Event, progress_words, step_words, words

LINE_EVERY_S = 5.0


class View(Protocol):
    """Shows events until it is closed."""

    def __call__(self, event: Event) -> None: ...
    def say(self, text: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(is_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> View:
    """Events go to standard output, all that is for people to standard error."""
    stream = err or sys.stderr
    if is_json:
        return Events(out or sys.stdout)
    return Bars(stream) if stream.isatty() else Lines(stream)


class Events:
    """For programs: as the training process tells them; what is said in words becomes `{"event": "note"}`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        print(json.dumps(event, ensure_ascii=False), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        self({"event": "note", "message": text})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines:
    """For logs: what happens once, and every few seconds how far it is."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_s = -LINE_EVERY_S
        self._stage = ""
        self._pace = Pace()

    def __call__(self, event: Event) -> None:
        self._pace.add(event)
        if event["event"] in ("step", "progress"):
            if self._is_due(event) or self._clock() - self._shown_s >= LINE_EVERY_S:
                self._shown_s = self._clock()
                self.say(self._line(event))
        elif text := words(event):
            self.say(text)

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _is_due(self, event: Event) -> bool:
        """The last step, and the first of each stage."""
        if event["event"] == "step":
            return bool(event["step"] == self._pace.num_steps)
        before, self._stage = self._stage, str(event["stage"])
        return self._stage != before

    def _line(self, event: Event) -> str:
        if event["event"] == "step":
            return f"  step {event['step']} of {self._pace.num_steps or '?'}: {step_words(event, self._pace)}"
        return f"  {progress_words(event)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Bars:
    """For people at a terminal: what happens once stays, the line below it changes."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False, table_column=Column(min_width=5, no_wrap=True)),
            BarColumn(bar_width=24), MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),  # on a narrow terminal, too
            TextColumn("{task.fields[info]}", markup=False), console=Console(file=stream, highlight=False), transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._stage = ""
        self._pace = Pace()

    def __call__(self, event: Event) -> None:
        self._pace.add(event)
        match event["event"]:
            case "stage":
                self._show(str(event["name"]))
            case "progress":
                self._show(str(event["stage"]))
                self._update(completed=event["done"], total=event.get("total") or None, info=event.get("text") or "")
            case "step":
                self._show("train")
                info = step_words(event, self._pace)
                self._update(completed=event["step"], total=self._pace.num_steps or None, info=info)
            case _:
                if text := words(event):
                    self.say(text)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, soft_wrap=True)

    def _show(self, stage: str) -> None:
        if stage == self._stage:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._stage = stage
        self._task = self._progress.add_task(stage, total=None, info="")

    def _update(self, **fields: Any) -> None:
        if self._task is not None:
            self._progress.update(self._task, **fields)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal was closed
            self._progress.stop()
