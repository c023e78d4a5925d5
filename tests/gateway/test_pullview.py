from __future__ import annotations

import io
import json

from backends.hub.events import Advanced, Downloading, Event, Finished, Kept, Listed, Retrying, Stored, Waiting
from gateway.pullview import Bar, Events, Lines, make_view

MIB = 1 << 20
LISTED = Listed("o/n:Q8_0", "o/n", "c" * 40, "its only GGUF model", 2, 200 * MIB, 50 * MIB, "/x")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(*events: Event) -> list[str]:
    """The lines of a log, with a second between events."""
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock)
    for event in events:
        clock.now += 1.0
        lines(event)
    return out.getvalue().splitlines()


def test_lines_come_every_few_seconds() -> None:
    progress = [Advanced("m.gguf", (50 + 10 * second) * MIB) for second in range(1, 13)]
    lines = shown(LISTED, Downloading("m.gguf", 200 * MIB, 50 * MIB), *progress, Stored("m.gguf", 200 * MIB))
    assert lines == [
        "pulling o/n:Q8_0, its only GGUF model: 2 files, 200 MiB, 50 MiB of it here already, commit cccccccccccc",
        "  m.gguf: 90 MiB of 200 MiB (45 %), 10 MiB/s, 11 s left",
        "  m.gguf: 140 MiB of 200 MiB (70 %), 10 MiB/s, 6 s left",
        "  m.gguf: 200 MiB, checksum right",
    ]


def test_words_for_what_happens_seldom() -> None:
    assert shown(
        Waiting("o/n:Q8_0", 17), Waiting("o/n:Q8_0", 0), Retrying("m.gguf", "reset", 4.2), Retrying("", "busy", 0.0), Kept("/old"),
        Finished("o/n:Q8_0", "/x/m.gguf", 5, is_new=False), Finished("o/n:Q8_0", "/x/m.gguf", 5, is_new=True),
    ) == [
        "another process (pid 17) is pulling o/n:Q8_0: waiting for it",
        "another process is pulling o/n:Q8_0: waiting for it",
        "  m.gguf: reset; again in 4 s",
        "busy; again",
        "the files of an older commit stay, a running gateway serves them: /old",
        "o/n:Q8_0 is here already, and nothing newer at the hub",
    ]  # fmt: skip


def test_events_for_programs() -> None:
    clock, out = Clock(), io.StringIO()
    view = Events(out, clock)
    for number in range(30):
        clock.now += 0.1
        view(Advanced("m.gguf", number))
    view(Finished("o/n:Q8_0", "/x/m.gguf", 5, is_new=True))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["progress", "progress", "pulled"]
    assert events[-1] == {"event": "pulled", "name": "o/n:Q8_0", "path": "/x/m.gguf", "num_bytes": 5, "is_new": True}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_at_a_terminal() -> None:
    out = Terminal()
    with make_view(False, err=out) as view:
        assert isinstance(view, Bar)
        for event in (LISTED, Downloading("m[1].gguf", 200 * MIB, 50 * MIB), Advanced("m[1].gguf", 100 * MIB)):
            view(event)
        view(Retrying("m[1].gguf", "reset", 1.0))
        view(Downloading("m[1].gguf", 200 * MIB, 100 * MIB))
        view(Stored("m[1].gguf", 200 * MIB))
    text = out.getvalue()
    assert "m[1].gguf: 200 MiB, checksum right" in text
    assert "m[1].gguf: reset; again in 1 s" in text
    assert "MiB" in text


def test_which_view() -> None:
    assert isinstance(make_view(True, out=io.StringIO()), Events)
    assert isinstance(make_view(False, err=io.StringIO()), Lines)
