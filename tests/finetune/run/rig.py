"""What tests of runs share: recipes without files, a fake training process, a view that remembers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from backends.demo import TARGET_DIR
from finetune.recipe.recipe import Data, Memory, Recipe, Source, Steps, Watch
from finetune.run import attempt
from finetune.run.begin import begin
from finetune.run.folder import RunFolder
from finetune.run.session import Policy, Session

FAKE = (sys.executable, "-P", str(Path(__file__).with_name("fake_child.py")))
RECIPE_TEXT = "base_model: demo\n"


def recipe_in(folder: Path, **steps: Any) -> Recipe:
    """Of the demo model; `steps` are fields of Steps."""
    data = folder / "rows.jsonl"
    if not data.exists():
        data.write_text('{"instruction": "a", "output": "b"}\n')
    chosen = {"micro_batch_size": 4, "gradient_accumulation_steps": 2, **steps}
    return Recipe(
        base=TARGET_DIR, data=Data((Source(data),), max_length=512), output_dir=folder / "run", steps=Steps(**chosen),
        memory=Memory(gradient_checkpointing=True), watch=Watch(save_steps=5), base_name="demo",
    )  # fmt: skip


class Remembering:
    """A view."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.said: list[str] = []

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    def say(self, text: str) -> None:
        self.said.append(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def steps(self) -> list[int]:
        return [event["step"] for event in self.events if event["event"] == "step"]


def session(recipe: Recipe, view: Remembering, is_resume: bool = False, **policy: Any) -> Session:
    """About to run, with the fake."""
    folder = RunFolder(recipe.output_dir)
    folder.path.mkdir(exist_ok=True)
    begun = begin(folder, recipe, RECIPE_TEXT, {"total": 1}, is_resume)
    return Session(folder, begun, Policy(command=FAKE, **policy), view, lambda _: {"weights": 7 << 20})


def on_a_machine_that_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts what it ends of the whole machine, and so of what other tests run."""
    monkeypatch.setattr(attempt, "num_oom_kills", lambda: 0)


def behave(monkeypatch: pytest.MonkeyPatch, **manner: Any) -> None:
    monkeypatch.setenv("FAKE_CHILD", json.dumps(manner))
