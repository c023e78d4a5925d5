"""What `forgegate serve` tells: lines for people on standard error and a summary on standard output, or JSON events."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from backends.status import State, Status


class Console:
    """`is_json`: one JSON object per line on standard output, `event` first; nothing else is printed there."""

    def __init__(
        self,
        is_json: bool,
        out: TextIO | None = None,
        err: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_json = is_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._clock = clock
        self._start = clock()
        self._last: dict[str, str] = {}
        """By engine, what was told of it last."""

    def engine(self, engine_id: str, status: Status) -> None:
        """An engine's new state."""
        facts = status.facts.description if status.facts and status.state is State.READY else status.detail
        text = f"engine {engine_id}: {status.state}{f' ({facts})' if facts else ''}"
        if self._last.get(engine_id) == text:
            return
        self._last[engine_id] = text
        self._tell(
            "engine", text,
            engine=engine_id, state=str(status.state), detail=status.detail, pid=status.pid,
        )  # fmt: skip

    def advice(self, engine_id: str, text: str) -> None:
        """What its user should know, or change."""
        self._tell("advice", f"engine {engine_id}: {text}", engine=engine_id, detail=text)

    def worker(self, text: str) -> None:
        self._tell("worker", text, detail=text)

    def note(self, text: str) -> None:
        self._tell("note", text, detail=text)

    def ready(self, url: str, admin_url: str, token_file: str, models: dict[str, list[str]], pid: int) -> None:
        """The gateway serves."""
        elapsed_s = self._clock() - self._start
        if self._is_json:
            self._emit("ready", url=url, admin_url=admin_url, models=models, pid=pid, elapsed_s=round(elapsed_s, 2))
            return
        lines = [
            f"forgegate is ready ({elapsed_s:.1f} s)",
            f"  endpoint  {url}/v1",
            f"  admin     {admin_url}  (token in {token_file})",
        ]
        for name, engines in models.items():
            lines.append(f"  model     {name}: {'; '.join(engines) or 'no engine is ready yet'}")
        _write(self._out, "\n".join(lines))

    def stopped(self, elapsed_s: float) -> None:
        self._tell("stopped", f"stopped ({elapsed_s:.1f} s)", elapsed_s=round(elapsed_s, 2))

    def _tell(self, event: str, text: str, **fields: Any) -> None:
        if self._is_json:
            self._emit(event, **fields)
        else:
            _write(self._err, text)

    def _emit(self, event: str, **fields: Any) -> None:
        _write(self._out, json.dumps({"event": event, **fields}))


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads any more: no reason to stop serving
        print(text, file=stream, flush=True)
