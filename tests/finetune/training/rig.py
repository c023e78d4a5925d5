"""Rows the demo model does not know, recipes for them, attempts in this process and as one of their own."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from backends.demo import TARGET_DIR
from finetune.recipe.plain import to_json
from finetune.recipe.recipe import Data, Memory, Recipe, Source, Steps, Watch
from tests.finetune.training.forked import Forked

WORDS = [
    "red",
    "blue",
    "lamp",
    "chair",
    "river",
    "사과",
    "바다",
    "구름",
    "seven",
    "light",
    "stone",
    "하늘",
    "paper",
    "green",
    "나무",
]


def write_rows(path: Path, count: int, seed: int = 0, max_words: int = 40) -> Path:
    """Questions and answers of random words; each is another's near duplicate by chance alone."""
    rng = Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question, answer = (" ".join(rng.choices(WORDS, k=rng.randint(3, max_words))) for _ in range(2))
            record = {"instruction": f"{number}: {question}", "input": "", "output": answer}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def make_recipe(run: Path, rows: Path, **changes: Any) -> Recipe:
    """Small, whole-batch, without a wait; `data`, `steps`, `memory`, `watch`, `lora` are dicts of fields, the rest is the recipe's own."""
    recipe = Recipe(
        base=TARGET_DIR,
        data=Data((Source(rows),), max_length=96),
        output_dir=run,
        steps=Steps(learning_rate=1e-3, max_steps=4, micro_batch_size=2),
        memory=Memory(gradient_checkpointing=False),
        watch=Watch(),
        base_name="demo",
        folder=run.parent,
    )
    for name, change in changes.items():
        value = dataclasses.replace(getattr(recipe, name), **change) if isinstance(change, dict) else change
        recipe = dataclasses.replace(recipe, **{name: value})
    return recipe


@dataclasses.dataclass(frozen=True)
class Told:
    """What an attempt said."""

    code: int
    events: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    def losses(self) -> list[float]:
        return [event["loss"] for event in self.of("step")]


def attempt(recipe: Recipe, run: Path, resume: Path | None = None) -> Told:
    """In this process. What it raises is raised."""
    from finetune.training.attempt import Attempt, Order
    from finetune.training.events import Events
    from finetune.training.stopping import Stop
    from finetune.training.world import World

    run.mkdir(parents=True, exist_ok=True)
    out = io.StringIO()
    code = Attempt(Order(recipe, run, resume), Events(out), Stop(), World()).run()
    return Told(code, [json.loads(line) for line in out.getvalue().splitlines()])


def adapter_of(run: Path) -> Any:
    """Its tensors, by name."""
    from safetensors.torch import load_file

    return load_file(run / "adapter" / "adapter_model.safetensors")


class Child:
    """`python -m finetune.training.child`, with its events as they come; a fork of a process that has torch loaded, or the command."""

    def __init__(
        self, recipe: Recipe, run: Path, *options: str, env: dict[str, str] | None = None, is_command: bool = False
    ) -> None:
        (run / "attempts").mkdir(parents=True, exist_ok=True)
        (run / "attempts" / "1.json").write_text(json.dumps(to_json(recipe)), encoding="utf-8")
        argv = ["--run", str(run), "--attempt", "1", *options]
        start = _command if is_command else Forked
        self.process = start(argv, {"OMP_NUM_THREADS": "1", **(env or {})}, run / "log.txt")
        self.events: list[dict[str, Any]] = []

    def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Read on until so many of these have been told."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if sum(event["event"] == kind for event in self.events) >= count:
                return self.events[-1]
        self.end()
        raise AssertionError(f"it ended before {kind}: {self.events[-3:]}")

    def end(self) -> Told:
        """Read what is left and wait."""
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.events += [json.loads(line) for line in self.process.stdout]
        code = self.process.wait(60)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return Told(code, self.events)


def _command(argv: list[str], env: dict[str, str], errors: Path) -> subprocess.Popen[str]:
    with errors.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "finetune.training.child", *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **env},
        )  # fmt: skip
