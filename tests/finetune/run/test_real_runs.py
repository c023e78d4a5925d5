"""Runs of the demo model that are killed, and runs that are short of memory: they end as if nothing had been."""

from __future__ import annotations

import json
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.pythons import child_env
from finetune.run.metrics import Metrics
from finetune.training import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "tests.finetune.run.real_train"]
NUM_STEPS = 16
RECIPE = """
base_model: demo
datasets:
  - path: rows.jsonl
adapter: qlora
lora_r: 4
lora_dropout: 0.1
sequence_len: {length}
sample_packing: true
micro_batch_size: {micro}
gradient_accumulation_steps: {accumulation}
gradient_checkpointing: false
chunked_cross_entropy: false
learning_rate: 1e-3
num_epochs: 20
max_steps: {steps}
save_steps: 3
"""


def write_recipe(folder: Path, num_rows: int, **values: Any) -> Path:
    rows = [
        {
            "instruction": f"램프 {number}번은 무슨 색인가요?",
            "output": f"{number}번 램프는 " + "파란색입니다. " * (1 + number % 5),
        }
        for number in range(num_rows)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(**values))
    return path


def started(recipe: Path, out: Path, *argv: str) -> subprocess.Popen[str]:
    command = [*COMMAND, str(recipe), "--out", str(out), "--json", *argv]
    # The number of threads follows the machine's load, and sums their number.
    env = {**child_env(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def to_end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its last event."""
    with process:
        last = {}
        for event in events(process):
            last = event
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 0, err
    return last


def kill_at(process: subprocess.Popen[str], step: int, is_parent: bool) -> None:
    """The training process or whoever watches it, as soon as that step is told. Both are gone afterwards."""
    with process:
        seen = next(event for event in events(process) if event["event"] == "step" and event["step"] >= step)
        assert seen["step"] < NUM_STEPS
        (child,) = psutil.Process(process.pid).children()
        (process if is_parent else child).kill()
        process.communicate()
    assert process.returncode == (-9 if is_parent else 3)
    assert not psutil.wait_procs([child], timeout=30)[1]


def losses(folder: Path) -> dict[int, float]:
    return dict(zip(*Metrics.read(folder / "metrics.jsonl").series("loss"), strict=True))


def test_killed_again_and_again_it_ends_as_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbits(32)
    with capsys.disabled():
        print(f"\nkills at random steps: seed {seed}")
    rng = random.Random(seed)
    recipe = write_recipe(tmp_path, 60, length=128, micro=2, accumulation=2, steps=NUM_STEPS)
    to_end(started(recipe, tmp_path / "whole"))
    last = 0
    for kill in range(3):
        argv = ["--resume"] if kill else []
        kill_at(
            started(recipe, tmp_path / "killed", *argv),
            min(rng.randint(last + 1, last + 3), NUM_STEPS - 4),
            is_parent=kill == 1,
        )
        last = max((each.step for each in checkpoints.whole_ones(tmp_path / "killed" / "checkpoints")), default=0)
    end = to_end(started(recipe, tmp_path / "killed", "--resume"))
    assert [each["status"] for each in end["attempts"]] == ["failed", "failed", "failed", "done"]
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert len(losses(tmp_path / "killed")) == NUM_STEPS


def test_short_of_memory_it_learns_the_same_in_smaller_batches(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, 120, length=256, micro=16, accumulation=1, steps=2)
    free = to_end(started(recipe, tmp_path / "free"))
    cap = int(free["peak_bytes"] * 0.65)
    capped = to_end(started(recipe, tmp_path / "capped", "--memory-limit", str(cap), "--on-oom", "retry"))
    attempts = capped["attempts"]
    assert len(attempts) > 1
    assert [each["status"] for each in attempts] == ["oom"] * (len(attempts) - 1) + ["done"]
    assert {each["micro_batch_size"] * each["gradient_accumulation_steps"] for each in attempts} == {16}
    assert attempts[-1]["micro_batch_size"] < 16
    assert capped["peak_bytes"] <= cap
    assert capped["predicted_bytes"] < free["predicted_bytes"]
    # Masks of dropout are other ones in other micro batches.
    assert losses(tmp_path / "capped") == pytest.approx(losses(tmp_path / "free"), rel=1e-3)
