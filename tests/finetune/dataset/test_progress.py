"""How far it is, in logs."""

from __future__ import annotations

import io
from itertools import count

from finetune.dataset.progress import Lines


def test_a_line_every_few_seconds_and_none_of_what_is_quick() -> None:
    stream, quick = io.StringIO(), io.StringIO()
    seconds = count()
    assert list(Lines(stream, lambda: float(next(seconds))).follow("read a.jsonl", range(5000), None))[-1] == 4999
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  read a.jsonl: 1,280"
    assert 1 < len(lines) < 5
    assert len(list(Lines(quick, lambda: 0.0).follow("write", range(5000), 5000))) == 5000
    assert quick.getvalue() == ""
