"""Commands that run in the trainer's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.pythons import child_env
from gateway import training
from gateway.exits import BAD_INPUT, DONE, NEGATIVE


def forgegate(*argv: str) -> subprocess.CompletedProcess[str]:
    """These replace the process that is asked, so that each takes one of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *argv], capture_output=True, text=True, check=False, env=child_env()
    )


def test_data_runs_where_its_modules_are(tmp_path: Path, forgegate_home: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"instruction": "배송은 언제 되나요?", "output": "내일 도착합니다."}) + "\n")
    done = forgegate("data", "doctor", str(path))
    assert done.returncode == DONE
    assert "JSONL, UTF-8, 1 rows" in done.stdout
    path.write_text(json.dumps({"instruction": "배송은 언제 되나요?", "output": ""}) + "\n")
    assert forgegate("data", "doctor", str(path)).returncode == NEGATIVE
    done = forgegate("data", "doctor", str(tmp_path / "none"))
    assert done.returncode == BAD_INPUT
    assert "no such file" in done.stderr


def test_only_variants_need_an_http_client(forgegate_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(training, "replace_by", lambda module, needed, argv: asked.append(needed))
    training.data(["doctor", "vary"])
    training.data(["vary", "seeds.jsonl"])
    assert ["httpx" in needed for needed in asked] == [False, True]


def test_the_trainers_environment_comes_first(forgegate_home: Path) -> None:
    python = forgegate_home / "envs" / "trainer" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    os.chmod(python, 0o755)
    assert training.python_for(["numpy"]) == str(python)


def test_what_is_missing_is_said_with_its_remedy(forgegate_home: Path) -> None:
    with pytest.raises(
        training.TrainerMissing, match=r"has no no_such_module.*Install it with: forgegate install trainer"
    ):
        training.python_for(["no_such_module"])


# train --------------------------------------------------------------------------------------------------------------


def test_train_takes_the_place_of_the_command(forgegate_home: Path) -> None:
    shown = forgegate("train", "--help")
    assert shown.returncode == DONE
    assert shown.stdout.startswith("usage: forgegate train")
    assert "learning_rate" in forgegate("train", "--keys").stdout
    assert forgegate("train", "no-such-recipe.yaml", "--plan").returncode == BAD_INPUT
    assert forgegate("train").returncode == BAD_INPUT


def test_training_needs_the_trainers_environment_and_a_plan_does_not(
    forgegate_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "lacking", lambda _, modules: "has no torch" if "torch" in modules else "")
    with pytest.raises(training.TrainerMissing, match="Install it with: forgegate install trainer"):
        training.train(["recipe.yaml"])
    became: list[Sequence[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, env: became.append(command))
    training.train(["recipe.yaml", "--plan"])
    assert became == [(sys.executable, "-P", "-m", "finetune.train", "recipe.yaml", "--plan")]


def test_an_interpreter_that_cannot_be_run_is_said(forgegate_home: Path) -> None:
    code = """
from gateway import training
training.python_for = lambda _: "/no/such/python"
training.train(["recipe.yaml"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=child_env())
    assert "TrainerMissing: /no/such/python cannot be run" in done.stderr
