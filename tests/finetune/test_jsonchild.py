"""Children that tell in JSON lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from backends.pythons import child_env
from finetune import jsonchild
from finetune.errors import RecipeUnusable, TrainError
from tests.processes import eventually


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `told` that runs what the test writes into it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "told.py"


def test_progress_is_passed_on_and_the_last_event_is_the_outcome(child: Path) -> None:
    child.write_text(
        'import sys\nprint(\'a library says hello\')\nprint(\'{"event": "progress", "stage": "s", "text": "t", "done": 1, "total": 2}\')\n'
        'print(\'{"event": "stored", "file": "\' + sys.argv[1] + \'"}\')\n'
    )
    told: list[tuple[str, str, int, int]] = []
    done = jsonchild.run("told", (Path("x"),), lambda *words: told.append(words))
    assert done == {"event": "stored", "file": "x"}
    assert told == [("s", "t", 1, 2)]


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ('print(\'{"event": "refused", "message": "no"}\'); sys.exit(2)', RecipeUnusable, "^no$"),
        (
            'print(\'{"event": "refused", "problems": [{"message": "m", "fix": "f"}]}\'); sys.exit(2)',
            RecipeUnusable,
            "^m: f$",
        ),
        ('print(\'{"event": "failed", "message": "no disk"}\'); sys.exit(3)', TrainError, "^no disk$"),
        ("sys.exit('ValueError: it broke')", TrainError, "^ValueError: it broke$"),
        ("os.kill(os.getpid(), 9)", TrainError, "without a word .killed by SIGKILL"),
    ],
)
def test_why_it_failed_is_said_in_its_words(child: Path, source: str, kind: type[TrainError], words: str) -> None:
    child.write_text(f"import os, sys\n{source}\n")
    with pytest.raises(kind, match=words) as caught:
        jsonchild.run("told", ())
    assert caught.value.exit_code == (2 if kind is RecipeUnusable else 3)


def test_it_is_ended_with_whoever_waits_for_it(child: Path, tmp_path: Path) -> None:
    child.write_text(
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n    pathlib.Path(sys.argv[1]).touch()\n    sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        'print(\'{"event": "progress", "stage": "s"}\', flush=True)\ntime.sleep(60)\n'
    )

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jsonchild.run("told", (tmp_path / "ended",), stop)
    assert (tmp_path / "ended").exists()


def test_it_ends_when_whoever_waits_for_it_is_killed(child: Path, tmp_path: Path) -> None:
    child.write_text(
        "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(120)\n"
    )
    code = f"from finetune import jsonchild; jsonchild.run('told', [{str(tmp_path / 'pid')!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code], env=child_env())
    eventually(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text(), 30)
    pid = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20)


def test_it_is_the_interpreter_that_runs_us(child: Path) -> None:
    child.write_text("import json, sys\nprint(json.dumps({'event': 'x', 'python': sys.executable}))")
    assert jsonchild.run("told", ())["python"] == sys.executable
