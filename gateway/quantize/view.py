"""What `forgegate quantize` shows: how far it is, and at last one table."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from backends.llamacpp.quantize.estimate import Interval
from gateway.quantize.order import Form, Result
from gateway.table import print_table

LINE_EVERY_S = 10.0
ABSENT = "-"


class Bars:
    """On standard error: a bar at a terminal, a line every few seconds elsewhere, notes always (but when `is_quiet`)."""

    def __init__(self, stream: TextIO, is_quiet: bool) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        self._is_quiet = is_quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._told_s = time.monotonic()
        if stream.isatty() and not is_quiet:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)

    def note(self, words: str) -> None:
        """Worth a line."""
        if not self._is_quiet:
            self._console.print(words)

    def progress(self, text: str, done: int, total: int) -> None:
        if self._progress is not None:
            if self._task is None:
                self._task = self._progress.add_task(text, total=total)
            self._progress.update(self._task, description=text, completed=done, total=total)
        elif time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._told_s = time.monotonic()
            self.note(f"{text}: {done} of {total}")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


def print_result(result: Result) -> None:
    """One table, what it was measured with, where the files are."""
    heads = ["level", "size", "bits/weight"]
    has_perplexity = any(form.perplexity for form in result.forms)
    has_speed = any(form.prefill for form in result.forms)
    heads += ["perplexity (95 %)", f"to {result.reference}"] if has_perplexity else []
    heads += ["prefill tok/s", "decode tok/s", f"to {result.reference}"] if has_speed else []
    print_table(heads, [_row(form, has_perplexity, has_speed) for form in result.forms])
    for note in result.notes:
        print(f"note: {note}")
    for form in result.forms:
        if form.path is not None and not form.is_source:
            print(f"{form.name}: {form.path}")
    if result.serve:
        print(f"serve one: forgegate serve {result.serve}")


def _row(form: Form, has_perplexity: bool, has_speed: bool) -> list[str]:
    cells = [form.name, _size(form.size_bytes)]
    cells.append(f"{form.bits_per_weight:.2f}")
    if has_perplexity:
        cells += [_interval(form.perplexity, 3), _interval(form.perplexity_ratio, 4)]
    if has_speed:
        cells += [_rate(form.prefill), _rate(form.decode), _ratios(form)]
    return cells


def _size(num_bytes: int) -> str:
    """In the decimal units that models' sizes are told in."""
    value, unit = (num_bytes / 1e9, "GB") if num_bytes >= 1e9 else (num_bytes / 1e6, "MB")
    return f"{value:.1f} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def _interval(value: Interval | None, digits: int) -> str:
    if value is None:
        return ABSENT
    if value.low is None or value.high is None:
        return f"{value.value:.{digits}f}"
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _rate(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratios(form: Form) -> str:
    """Of prefill and decode."""
    if form.prefill_ratio is None or form.decode_ratio is None:
        return ABSENT
    return f"{form.prefill_ratio.value:.2f}x, {form.decode_ratio.value:.2f}x"


def as_json(result: Result) -> dict[str, Any]:
    return {
        "model": str(result.model),
        "source_digest": result.source_digest or None,
        "reference": result.reference,
        "text": result.text or None,
        "imatrix": str(result.imatrix) if result.imatrix else None,
        "forms": [_form_json(form) for form in result.forms],
        "notes": list(result.notes),
    }


def _form_json(form: Form) -> dict[str, Any]:
    intervals = {
        "perplexity": form.perplexity, "perplexity_ratio": form.perplexity_ratio, "prefill_ratio": form.prefill_ratio,
        "decode_ratio": form.decode_ratio,
    }  # fmt: skip
    return {
        "level": form.name,
        "is_source": form.is_source,
        "path": str(form.path) if form.path else None,
        "size_bytes": form.size_bytes,
        "bits_per_weight": form.bits_per_weight,
        "num_windows": form.num_windows,
        "prefill_tok_s": form.prefill,
        "decode_tok_s": form.decode,
        "seconds": form.seconds,
        **{name: value.as_json() if value else None for name, value in intervals.items()},
    }
