"""RUN/metrics.jsonl over attempts."""

from __future__ import annotations

from pathlib import Path

from finetune.training import metrics


def test_what_was_told_behind_the_step_that_is_gone_on_from_is_cut(tmp_path: Path) -> None:
    path = tmp_path / metrics.NAME
    for step in (1, 2, 3):
        metrics.append(path, {"event": "step", "step": step, "loss": 1.5})
    with path.open("a") as file:
        file.write('{"event": "step", "st')  # an attempt that was killed
    assert [entry["step"] for entry in metrics.cut(path, 2)] == [1, 2]
    metrics.append(path, {"event": "step", "step": 3, "loss": 2.5})
    assert [(entry["step"], entry["loss"]) for entry in metrics.read(path)] == [(1, 1.5), (2, 1.5), (3, 2.5)]


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert metrics.read(tmp_path / metrics.NAME) == []
    assert metrics.cut(tmp_path / metrics.NAME, 0) == []
