"""A child that tells in JSON lines what it does, in the interpreter that runs us: progress is passed on, the last event is the outcome.

torch stays in children: whoever starts them stays small, and what they used is the system's again when they end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from backends.process import exit_words
from backends.pythons import child_env
from finetune.errors import RecipeUnusable, TrainError

Tell = Callable[[str, str, int, int], None]
"""Stage, words, done, total."""
_REFUSED = 2
_END_S = 10.0


def silent(stage: str, text: str, done: int, total: int) -> None:
    """Nobody watches."""


def run(module: str, arguments: Sequence[object], tell: Tell = silent) -> dict[str, Any]:
    """The last event of `python -m module`. It is dead when this returns, in whatever way. Raises TrainError in the child's words."""
    argv = [sys.executable, "-P", "-m", "finetune.tied", module, *map(str, arguments)]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            argv, env=child_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert child.stdout is not None
            last = follow(child.stdout, tell)
            code = child.wait()
        finally:
            _end(child)
        if code == 0:
            return last
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip().splitlines()
        raise _error(code, last, said[-1] if said else "")


def follow(lines: Iterable[str], tell: Tell) -> dict[str, Any]:
    """All events; the last that is no progress. Lines that are none are a library's own."""
    last: dict[str, Any] = {}
    for line in lines:
        event: Any = None
        with suppress(ValueError):
            event = json.loads(line)
        if not isinstance(event, dict) or "event" not in event:
            continue
        if event["event"] != "progress":
            last = event
            continue
        tell(str(event["stage"]), str(event.get("text", "")), int(event.get("done", 0)), int(event.get("total", 0)))
    return last


def _error(code: int, last: dict[str, Any], last_words: str) -> TrainError:
    problems = [_problem_words(problem) for problem in last.get("problems", ())]
    message = "\n".join(problems) or str(last.get("message", "")) or last_words
    if code == _REFUSED:
        return RecipeUnusable(message or "the child refused without a word")
    return TrainError(message or f"the child ended without a word ({exit_words(code)})")


def _problem_words(problem: dict[str, str]) -> str:
    return f"{problem['message']}: {problem['fix']}"


def _end(child: subprocess.Popen[str]) -> None:
    """Children remove what they began when they are told to end."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()
