"""The process that an attempt is: how it ends, and what it leaves."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.recipe.recipe import Ewc, Recipe, Source
from finetune.training import checkpoints
from tests.finetune.training.rig import Child, Told, make_recipe, write_rows

pytestmark = [pytest.mark.torch, pytest.mark.slow]
STEPS = 8


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", 60, max_words=10)


def recipe_of(run: Path, rows: Path) -> Recipe:
    return make_recipe(
        run, rows, steps={"max_steps": STEPS, "micro_batch_size": 1}, lora={"dropout": 0.1}, watch={"save_steps": 2}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Told:
    """A run that nobody stops, by the command."""
    run = tmp_path_factory.mktemp("whole")
    told = Child(recipe_of(run, rows), run, is_command=True).end()
    assert (run / "log.txt").read_text() == "", "libraries are quiet"
    return told


def goes_on_as(whole: Told, told: Told, begun: int) -> bool:
    losses = whole.losses()[begun:]
    return [step["step"] for step in told.of("step")] == list(range(begun + 1, STEPS + 1)) and all(
        math.isclose(one, other, rel_tol=1e-5) for one, other in zip(losses, told.losses(), strict=True)
    )


HALT = """
import time
from pathlib import Path
from transformers import TrainerCallback
class Halt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        while state.global_step == 4 and not Path(__file__).with_name("go").exists():
            time.sleep(0.01)
"""
"""The fourth step ends when it may."""


def test_stopped_by_a_signal_it_leaves_a_whole_checkpoint(tmp_path: Path, rows: Path, whole: Told) -> None:
    assert (whole.code, whole.last["event"]) == (0, "done")
    (tmp_path / "halting.py").write_text(HALT)
    recipe = recipe_of(tmp_path, rows)
    watch = replace(recipe.watch, callbacks=("halting:Halt",))
    child = Child(replace(recipe, watch=watch, folder=tmp_path), tmp_path)
    child.until("step", 3)
    child.process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    stopped = child.end()
    assert stopped.code == 143
    assert stopped.last["event"] == "stopped"
    checkpoint = Path(stopped.last["checkpoint"])
    assert checkpoint.name == f"checkpoint-{stopped.last['step']}"
    assert stopped.last["step"] == 4
    resumed = Child(recipe_of(tmp_path, rows), tmp_path, "--resume", str(checkpoint)).end()
    assert resumed.code == 0
    assert goes_on_as(whole, resumed, stopped.last["step"])


def test_killed_at_any_point_the_last_whole_checkpoint_serves(tmp_path: Path, rows: Path, whole: Told) -> None:
    child = Child(recipe_of(tmp_path, rows), tmp_path)
    child.until("saved", 2)
    child.process.kill()
    child.end()
    folder = tmp_path / "checkpoints"
    last = checkpoints.whole_ones(folder)[-1]
    # As a crash of the machine may leave it: there, but not all of it; and one that was being written.
    torn = folder / f"checkpoint-{last.step + 2}"
    shutil.copytree(last.path, torn, dirs_exist_ok=True)
    (torn / "optimizer.pt").write_bytes((torn / "optimizer.pt").read_bytes()[:1000])
    (folder / ".partial-9").mkdir(exist_ok=True)
    resumed = Child(recipe_of(tmp_path, rows), tmp_path, "--resume", str(torn)).end()
    assert resumed.code == 0
    assert resumed.of("start")[0]["resumed_from"] == last.step
    assert resumed.of("start")[0]["notes"] == [f"{torn.name} is not whole: the run goes on from {last.path.name}"]
    assert goes_on_as(whole, resumed, last.step)
    assert not (folder / ".partial-9").exists()


def test_stopped_before_its_first_step_there_is_no_checkpoint(tmp_path: Path, rows: Path) -> None:
    child = Child(recipe_of(tmp_path, rows), tmp_path)
    child.until("stage", 1)
    os.kill(child.process.pid, signal.SIGINT)
    told = child.end()
    assert (told.code, told.last) == (143, {"event": "stopped", "step": 0, "checkpoint": None})


def test_when_its_parent_is_gone_it_saves_and_ends(tmp_path: Path, rows: Path) -> None:
    steps = {"num_epochs": 1000.0, "max_steps": 10_000, "micro_batch_size": 1}
    child = Child(make_recipe(tmp_path, rows, steps=steps, watch={"save_steps": 1_000}), tmp_path)
    child.until("step", 1)
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.process.wait(60) == 143
    assert checkpoints.whole_ones(tmp_path / "checkpoints")
    child.end()


def test_out_of_memory_is_told_with_what_takes_it(tmp_path: Path, rows: Path) -> None:
    steps, memory = {"micro_batch_size": 60}, {"chunked_loss": False, "packing": False}
    recipe = make_recipe(tmp_path, write_rows(tmp_path / "rows.jsonl", 400, max_words=24), steps=steps, memory=memory)
    told = Child(recipe, tmp_path, "--memory-limit", str(700 << 20)).end()
    assert told.code == 4
    assert told.last["event"] == "oom"
    assert told.last["stage"] == "train"
    parts = told.last["memory"]
    assert parts["weights"] > parts["adapter"] > 0
    assert parts["overhead"] > 100 << 20
    assert parts["activations"] > 50 << 20
    assert sum(parts.values()) < 900 << 20
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, rows: Path) -> None:
    recipe = make_recipe(tmp_path, rows, memory={"attention": "varlen"})
    told = Child(recipe, tmp_path).end()
    assert (told.code, told.last["event"]) == (2, "refused")
    assert told.last["message"] == "attn_implementation: varlen: it needs a GPU: leave it out, and sdpa is used"
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(("strength", "accumulation"), [(0, 1), (30, 1), (30, 2)])
def test_two_processes_learn_what_one_learns_from_twice_the_batch(
    tmp_path: Path, rows: Path, free_port: Callable[[], int], strength: float, accumulation: int
) -> None:
    """By gloo, on a CPU: the same rows a step, the same losses, each held-out row evaluated once; only the first process talks. With a
    penalty, its gradients and those of checkpointed blocks come one behind the other."""
    ewc = Ewc(strength, (Source(rows),), 8) if strength else None
    told = {}
    for name, micro, size in (("one", 2, 1), ("two", 1, 2)):
        recipe = make_recipe(
            tmp_path / name, rows, data={"eval_share": 0.2}, watch={"save_steps": 1, "eval_steps": 2}, ewc=ewc,
            steps={"micro_batch_size": micro, "gradient_accumulation_steps": accumulation, "max_steps": 2},
            memory={"gradient_checkpointing": bool(strength)},
        )  # fmt: skip
        port = str(free_port())
        world = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if size > 1 else {}
        children = [
            Child(recipe, tmp_path / name, env={**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world else None)
            for rank in range(size)
        ]
        told[name], *others = [child.end() for child in children]
        assert all((other.code, other.events) == (0, []) for other in others)
    assert told["one"].code == told["two"].code == 0
    for kind, value in (("step", "loss"), ("step", "grad_norm"), ("step", "penalty"), ("eval", "loss")):
        for one, other in zip(told["one"].of(kind), told["two"].of(kind), strict=True):
            assert other.get(value, 0) == pytest.approx(one.get(value, 0), rel=1e-5 if value == "loss" else 1e-3)
            assert (other["num_tokens"], other.get("rows")) == (one["num_tokens"], one.get("rows"))
    assert [event["step"] for event in told["two"].of("saved")] == [1, 2]
