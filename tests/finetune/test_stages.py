"""How far a command is, as it is shown."""

from __future__ import annotations

import io
import json

from finetune.stages import Lines, shown, words


def test_lines_come_with_every_stage_and_every_few_seconds() -> None:
    now = [0.0]
    stream = io.StringIO()
    lines = Lines(stream, lambda: now[0])
    for second, stage, done in ((0, "load", 0), (1, "score", 0), (2, "score", 1), (7, "score", 6)):
        now[0] = second
        lines.tell(stage, "the base", done, 9)
    assert stream.getvalue().splitlines() == [
        "  load: the base (0 of 9)",
        "  score: the base (0 of 9)",
        "  score: the base (6 of 9)",
    ]


def test_programs_get_json_and_people_get_lines() -> None:
    out, err = io.StringIO(), io.StringIO()
    with shown(True, out, err) as tell:
        tell("ids", "asking", 1, 2)
    assert json.loads(out.getvalue()) == {"event": "progress", "stage": "ids", "text": "asking", "done": 1, "total": 2}
    assert err.getvalue() == ""
    with shown(False, out, err) as tell:
        tell("ids", "", 0, 0)
    assert err.getvalue() == "  ids\n"


def test_a_bar_is_for_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with shown(False, io.StringIO(), stream) as tell:
        tell("scores", "asking for [brackets]", 1, 2)
    assert "scores: asking for [brackets]" in stream.getvalue()
    assert words("s", "t", 1, 2) == "s: t (1 of 2)"
