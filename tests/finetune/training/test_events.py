"""Lines of JSON, and nobody else's."""

from __future__ import annotations

import io
import json
import subprocess
import sys

from finetune.training.events import Events


def test_each_is_a_line() -> None:
    out = io.StringIO()
    events = Events(out)
    events.stage("load", "모델")
    events.tell("saved", step=3, path="a\nb")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines == [{"event": "stage", "name": "load", "text": "모델"}, {"event": "saved", "step": 3, "path": "a\nb"}]
    assert events.stage_name == "load"


def test_items_that_are_followed_come_through_and_their_number_is_told() -> None:
    out = io.StringIO()
    events = Events(out)
    events.stage("tokenise", "")
    assert list(events.follow("x", iter("abc"), None)) == ["a", "b", "c"]
    assert json.loads(out.getvalue().splitlines()[-1]) == {
        "event": "progress", "stage": "tokenise", "done": 3, "total": 3,
    }  # fmt: skip


def test_once_nobody_reads_it_is_silent() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Events(Closed()).tell("saved", step=1)
    Events(None).tell("saved", step=1)


def test_what_libraries_print_is_not_among_them() -> None:
    code = (
        "import os, sys; from finetune.training.events import Events; e = Events.on_stdout(True); print('noise'); "
        "os.write(1, b'more noise\\n'); e.tell('saved', step=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"event": "saved", "step": 1}
    assert sorted(done.stderr.split("\n")) == ["", "more noise", "noise"]
