"""How a run is shown: on a terminal, in logs, to programs."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from finetune.run.curves import draw
from finetune.run.metrics import Metrics, smooth
from finetune.run.pace import Pace
from finetune.run.view import Bars, Events, Lines, make_view
from finetune.run.viewwords import duration, words

START: dict[str, Any] = {
    "event": "start", "num_steps": 40, "num_trainable": 41_943_040, "num_parameters": 8_072_204_288, "resumed_from": 20,
    "device": "NVIDIA H200", "dtype": "bfloat16", "attention": "varlen", "notes": ["8-bit AdamW is 32-bit here"],
}  # fmt: skip


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "event": "step", "step": number, "loss": 1.5, "grad_norm": 0.4, "learning_rate": 1e-4, "num_tokens": 8000,
        "seconds": 2.0, "memory_bytes": 6 << 30, "peak_bytes": 8 << 30, "total_bytes": 24 << 30, **fields,
    }  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_say_how_far_it_is_now_and_then() -> None:
    out, clock = io.StringIO(), iter(range(1000))
    with Lines(out, clock=lambda: next(clock)) as view:
        view(START)
        for number in range(21, 41):
            view(step(number))
    lines = out.getvalue().splitlines()
    assert lines[0] == (
        "training 40 steps, from step 20 on NVIDIA H200 in bfloat16, varlen attention: 41,943,040 of 8,072,204,288 parameters (0.52 %)"
    )
    assert lines[1] == "note: 8-bit AdamW is 32-bit here"
    assert lines[2] == "  step 21 of 40: loss 1.5000, 4,000 tok/s, memory 8.0 GiB of 24.0 GiB, 38 s left"
    assert 3 < len(lines) < 15, "not a line for every step"
    assert lines[-1].startswith("  step 40 of 40")


def test_a_new_stage_is_told_at_once() -> None:
    out = io.StringIO()
    view = Lines(out, clock=lambda: 0.0)
    for stage, done in (("read", 10), ("read", 20), ("tokenise", 5)):
        view({"event": "progress", "stage": stage, "done": done, "total": 3000})
    assert out.getvalue().splitlines() == ["  read: 10 of 3,000", "  tokenise: 5 of 3,000"]


def test_bars_on_a_terminal_keep_what_matters() -> None:
    out = Terminal()
    view = make_view(False, err=out)
    assert isinstance(view, Bars)
    with view:
        view({"event": "stage", "name": "load", "text": "loading"})
        view({"event": "progress", "stage": "read", "done": 3, "total": None})
        view(START)
        view(step(21))
        view({"event": "guard", "name": "spike", "message": "the loss [jumps]", "is_fatal": False})
        view.say("said")
    shown = out.getvalue()
    assert "warning: the loss [jumps]" in shown
    assert "said" in shown


def test_programs_get_the_events_themselves() -> None:
    out = io.StringIO()
    view = make_view(True, out=out)
    assert isinstance(view, Events)
    with view:
        view(START)
        view.say("words")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [START, {"event": "note", "message": "words"}]
    assert isinstance(make_view(False, err=io.StringIO()), Lines)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "eval", "step": 50, "loss": 0.51234}, "  step 50: evaluation loss 0.5123"),
        ({"event": "saved", "step": 50, "path": "x"}, "  step 50: checkpoint saved"),
        ({"event": "guard", "message": "the end", "is_fatal": True}, "error: the end"),
        ({"event": "stage", "name": "train", "text": "training"}, ""),
        ({"event": "of another version"}, ""),
    ],
)
def test_events_in_words(event: dict[str, Any], said: str) -> None:
    assert words(event) == said


def test_the_pace_is_that_of_the_latest_steps() -> None:
    pace = Pace()
    assert (pace.tok_s, pace.left_s, pace.loss) == (None, None, None)
    pace.add(START)
    pace.add(step(21, loss=math.nan))
    pace.add(step(22))
    assert (pace.tok_s, pace.left_s, pace.loss) == (4000.0, 36.0, 1.5)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# curves -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """Of a run that was killed while it wrote."""
    path = tmp_path / "metrics.jsonl"
    entries = [step(number, loss=2 / number) for number in range(1, 31)]
    entries[4]["loss"] = math.nan
    entries += [{"event": "eval", "step": 30, "loss": 0.3, "num_tokens": 5}, {"event": "eval", "step": 20, "loss": 0.2}]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"event": "step", "st')
    return path


@pytest.mark.parametrize("title", ["title", "costs $5^{ and $", "상담 봇"])
def test_curves_are_a_picture(metrics: Path, title: str) -> None:
    found = Metrics.read(metrics)
    target = metrics.with_name("curves.png")
    assert draw(found, target, title, [{"step": 5, "name": "nan"}])
    assert target.read_bytes().startswith(b"\x89PNG")
    assert target.stat().st_size > 20_000


def test_metrics_leave_out_what_is_no_number(metrics: Path) -> None:
    found = Metrics.read(metrics)
    assert len(found.steps) == 30
    assert 5 not in found.series("loss")[0]
    assert found.best_eval == {"event": "eval", "step": 20, "loss": 0.2}
    assert found.tok_s == 4000.0


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert not draw(Metrics.read(tmp_path / "none"), tmp_path / "curves.png", "title")
    assert not (tmp_path / "curves.png").exists()


def test_smoothing_has_no_bias_towards_the_first() -> None:
    assert smooth([]) == []
    assert smooth([3.0] * 100) == pytest.approx([3.0] * 100)
    assert smooth([1.0, 2.0]) == [1.0, 2.0]
    assert 1.0 < smooth([1.0] * 50 + [2.0] * 50)[55] < 2.0
