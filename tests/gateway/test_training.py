"""Commands that run in the trainer's environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from gateway import cli, training
from gateway.exits import BAD_INPUT, DONE, NEGATIVE


def test_data_runs_where_its_modules_are(
    tmp_path: Path, forgegate_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"instruction": "배송은 언제 되나요?", "output": "내일 도착합니다."}) + "\n")
    assert cli.main(["data", "doctor", str(path)]) == DONE
    assert "JSONL, UTF-8, 1 rows" in capfd.readouterr().out
    path.write_text(json.dumps({"instruction": "배송은 언제 되나요?", "output": ""}) + "\n")
    assert cli.main(["data", "doctor", str(path)]) == NEGATIVE
    assert cli.main(["data", "doctor", str(tmp_path / "none")]) == BAD_INPUT
    assert "no such file" in capfd.readouterr().err


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


def test_a_child_that_a_signal_ended_has_a_code_of_its_own(
    forgegate_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = forgegate_home.parent / "sh"
    script.write_text("#!/bin/sh\nkill -TERM $$\n")
    os.chmod(script, 0o755)
    monkeypatch.setattr(training, "python_for", lambda _: str(script))
    assert training.run("finetune.data", (), []) == 128 + 15
