"""A run over its attempts, with a training process that is a fake."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from finetune.recipe.plain import from_json
from finetune.run import ending
from finetune.run.ending import Ended, outcome_of
from finetune.run.session import Session
from finetune.training import checkpoints
from tests.finetune.run.rig import Remembering, behave, on_a_machine_that_has_memory, recipe_in, session

MIB = 1 << 20


def record_of(run: Session) -> dict[str, object]:
    found: dict[str, object] = json.loads(run.folder.record.read_text())
    return found


def test_a_run_that_ends_well_is_recorded(tmp_path: Path) -> None:
    view = Remembering()
    run = session(recipe_in(tmp_path), view)
    assert run.run().status == ending.DONE
    assert view.steps() == list(range(1, 21))
    record = record_of(run)
    assert (record["status"], record["predicted_bytes"], record["peak_bytes"]) == ("done", 7 * MIB, 400 * MIB)
    assert record["data"]["num_rows"] == 40  # type: ignore[index]
    (attempt,) = record["attempts"]  # type: ignore[misc]
    assert (attempt["num_steps"], attempt["exit_code"], attempt["resumed_from"]) == (20, 0, None)
    assert "a library's greeting" in run.folder.log.read_text()
    assert json.loads(run.folder.environment.read_text())["packages"]["numpy"]
    assert run.folder.recipe_yaml.read_text() == "base_model: demo\n"


def test_out_of_memory_stops_with_memory_by_part_and_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, most=2)
    run = session(recipe_in(tmp_path), Remembering())
    outcome = run.run()
    assert outcome.status == ending.OOM
    assert run.oom_words(outcome).splitlines() == [
        "out of memory (train): the fake device is full",
        "memory by part: activations 1.6 GiB, weights 800 MiB",
        "next step: micro_batch_size 4 -> 2, gradient_accumulation_steps 2 -> 4: the same effective batch of 8, a little slower; "
        "--on-oom retry takes it",
    ]
    assert record_of(run)["status"] == "oom"


def test_a_retry_is_one_step_lower_and_goes_on_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, most=1)
    view = Remembering()
    run = session(recipe_in(tmp_path), view, is_oom_retried=True)
    assert run.run().status == ending.DONE
    attempts = run.record.attempts
    assert [(each.micro_batch_size, each.gradient_accumulation_steps) for each in attempts] == [(4, 2), (2, 4), (1, 8)]
    assert [each.resumed_from for each in attempts] == [None, 5, 10]
    assert [each.status for each in attempts] == ["oom", "oom", "done"]
    assert view.steps() == list(range(1, 21)), "no step is lost, and none is trained twice"
    told = [json.loads(run.folder.attempt(each.number).read_text()) for each in attempts]
    assert [from_json(each).steps.effective_batch_size for each in told] == [8, 8, 8]
    assert "again from step 5, with micro_batch_size 4 -> 2" in view.said[0]
    losses = [json.loads(line)["loss"] for line in run.folder.metrics.read_text().splitlines()]
    assert losses == [2 * math.exp(-step / 10) for step in range(1, 21)]


def test_a_step_that_changes_the_weights_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, most=0)
    view = Remembering()
    run = session(recipe_in(tmp_path, micro_batch_size=1), view, is_oom_retried=True, has_gpu=True)
    outcome = run.run()
    assert outcome.status == ending.OOM
    assert [each.resumed_from for each in run.record.attempts] == [None, None]
    assert "again from the beginning, with optimizer adamw_torch -> paged_adamw_8bit" in view.said[0]
    assert [each.step for each in checkpoints.whole_ones(run.folder.path / "attempts" / "before-2-checkpoints")] == [5]
    assert run.oom_words(outcome).splitlines()[-1].startswith("next step: a shorter sequence_len")


def test_nothing_is_left_where_rows_cannot_be_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, most=0)
    run = session(recipe_in(tmp_path, micro_batch_size=1), Remembering(), is_oom_retried=True, allow_shorter=True)
    outcome = run.run()
    assert [each.step_down for each in run.record.attempts][1:] == ["sequence_len 512 -> 256: longer rows are left out"]
    assert run.oom_words(outcome).splitlines()[-1].startswith("nothing is left to save")


def test_a_guard_ends_the_run_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, end={"at": 7, "how": "nan"})
    run = session(recipe_in(tmp_path), Remembering())
    outcome = run.run()
    assert outcome.status == ending.GUARD
    assert "step 7: the loss is nan" in outcome.message
    assert run.record.findings[0]["rows"] == [7]


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("refuse", ending.REFUSED, "base_model: it is no model"),
        ("fail", ending.FAILED, "No space left on device"),
        ("crash", ending.FAILED, "RuntimeError: the fake crashed"),
        ("kill", ending.FAILED, "killed from outside (SIGKILL)"),
        ("linger", ending.FAILED, "killed from outside (SIGKILL)"),
    ],
)
def test_every_other_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, status: str, said: str
) -> None:
    behave(monkeypatch, end={"at": 7, "how": how})
    on_a_machine_that_has_memory(monkeypatch)
    run = session(recipe_in(tmp_path), Remembering())
    outcome = run.run()
    assert outcome.status == status
    assert said in outcome.message
    assert record_of(run)["status"] == status


@pytest.mark.parametrize(
    ("ended", "told", "status"),
    [
        (Ended(-9, num_oom_kills=1), {}, ending.OOM),
        (Ended(-9, num_oom_kills=None), {}, ending.OOM),
        (Ended(-9, num_oom_kills=0), {}, ending.FAILED),
        (Ended(-9, is_asked=True, num_oom_kills=0), {}, ending.STOPPED),
        (Ended(-15), {}, ending.STOPPED),
        (Ended(143), {}, ending.STOPPED),
        (Ended(-11), {}, ending.FAILED),
        (Ended(1), {"guard": {"is_fatal": False, "message": "a warning"}}, ending.FAILED),
        (Ended(1), {"guard": {"is_fatal": True, "message": "the end"}}, ending.GUARD),
        (Ended(0), {}, ending.FAILED),
    ],
)
def test_what_an_end_means(ended: Ended, told: dict[str, dict[str, object]], status: str) -> None:
    assert outcome_of(ended, told).status == status


def test_the_kernels_kill_is_told_as_want_of_memory() -> None:
    assert "The kernel ended the training process" in outcome_of(Ended(-9, num_oom_kills=1), {}).message
    assert "killed by SIGSEGV" in outcome_of(Ended(-11), {}).message
