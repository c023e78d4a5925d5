"""`forgegate train` as a user runs it: what is typed wrong, how it ends, what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from backends.pythons import child_env
from finetune import train
from finetune.run import command
from finetune.run.again import again_command
from finetune.run.folder import FolderUnusable, writing
from tests.finetune.run.rig import FAKE, behave, on_a_machine_that_has_memory

ROOT = Path(__file__).parents[2]
FAKE_TRAIN = [sys.executable, "-m", "tests.finetune.run.fake_train"]
RECIPE = """
base_model: demo
datasets:
  - path: rows.jsonl
adapter: lora
sequence_len: 256
micro_batch_size: 4
gradient_accumulation_steps: 2
max_steps: 20
save_steps: 5
output_dir: {out}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [{"instruction": f"배송은 언제 되나요? {n}", "output": "내일 도착할 예정입니다."} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(out=tmp_path / "run"))
    return path


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake trains nothing that could be exported."""
    monkeypatch.setattr(command, "export", lambda *_: None)


def run(*argv: object) -> int:
    return train.main([str(each) for each in argv], FAKE)


# typed wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "which recipe?"),
        (("r.yaml", "--gpu", "24GB"), "--gpu goes with --plan"),
        (("r.yaml", "--gpu-hour-price", "3"), "--gpu-hour-price goes with --plan"),
        (("r.yaml", "--rows", "3"), "--rows goes with --plan"),
        (("r.yaml", "--plan", "--row-tokens", "3"), "--row-tokens goes with --rows"),
        (("r.yaml", "--plan", "--rows", "1000001"), "is no number of rows from 1 to 1,000,000"),
        (("r.yaml", "--allow-shorter"), "--allow-shorter goes with --on-oom retry"),
        (("r.yaml", "--url", "http://x"), "go with --publish NAME"),
        (("r.yaml", "--model", "demo"), "go with --publish NAME"),
        (("r.yaml", "--candidate-only"), "--candidate-only goes with --publish NAME"),
        (("r.yaml", "--force", "no time"), "--force goes with --publish NAME"),
        (("r.yaml", "--publish", "s", "--canary-for", "9"), "--canary-for goes with --canary PERCENT"),
        (("r.yaml", "--publish", "s", "--candidate-only", "--canary", "10"), "--candidate-only moves no alias"),
        (("r.yaml", "--publish", "s", "--canary", "100"), "'100' is no part of the traffic: write 1 to 99"),
        (("r.yaml", "--publish", "s", "--canary", "9", "--canary-for", "0"), "'0' is no time"),
        (("r.yaml", "--publish", "s", "--force", " "), "a reason is needed"),
        (("r.yaml", "--publish", "s", "--rule", "better"), "invalid choice"),
        (("r.yaml", "--plan", "--resume"), "--plan starts nothing"),
        (("r.yaml", "--memory-limit", "much"), "'much' is no size: write 24GiB"),
        (("r.yaml", "--set", "learning_rate"), "write key=value"),
        (("r.yaml", "--plan", "--gpu-hour-price", "nan"), "is no price"),
        (("r.yaml", "--on-oom", "pray"), "invalid choice"),
        (("r.yaml", "--publish", "상담 봇"), "is no name: letters, digits and"),
        (("r.yaml", "--publish", "support@v1"), "is no name: letters, digits and"),
    ],
)
def test_usage_is_checked_first(argv: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_recipe_that_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("base_model: [demo\n")
    for path in (tmp_path / "none.yaml", tmp_path, broken):
        assert run(path) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert str(path) in err
        assert "Traceback" not in err


def test_all_that_is_wrong_is_said_at_once(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text() + "lerning_rate: 1\nlora_r: many\n")
    assert run(recipe) == 2
    err = capsys.readouterr().err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 2
    assert "learning_rate" in err


def test_an_output_folder_that_cannot_be_made_is_said(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe, "--out", recipe / "run") == 3
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderUnusable, match=r"the disk is full: .* free some space"), writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))


# without torch ------------------------------------------------------------------------------------------------------


def without_torch(*argv: object) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft', 'trl', 'datasets', 'numpy', 'matplotlib')))\n"
        "from finetune import train; sys.exit(train.main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)], env=child_env(), capture_output=True, text=True, check=False
    )


def test_help_keys_and_plan_need_no_torch(recipe: Path) -> None:
    shown = without_torch("--help")
    assert shown.returncode == 0
    assert "forgegate train recipe.yaml --resume" in shown.stdout
    shown = without_torch("--keys", "--json")
    assert {"name", "status", "words"} <= json.loads(shown.stdout)[0].keys()
    shown = without_torch(recipe, "--plan", "--gpu", "24GB", "--json")
    assert shown.returncode == 0, shown.stderr
    planned = json.loads(shown.stdout)
    assert planned["fits"]
    assert planned["data"]["num_rows"] == 20
    assert not (recipe.parent / "run").exists(), "a plan starts nothing"


def test_a_plan_supposes_rows(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe.parent / "rows.jsonl").unlink()
    assert run(recipe, "--plan", "--gpu", "H100", "--rows", 500, "--row-tokens", 100, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["data"]["num_rows"], planned["data"]["mean_length"]) == (500, 100)
    assert planned["speed"]["seconds"] > 0
    assert run(recipe, "--plan", "--gpu", "H100", "--rows", 1000, "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"]["mean_length"] == 256, "no longer than the recipe's rows may be"


def test_a_plan_for_people(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe.parent / "rows.jsonl").unlink()
    assert run(recipe, "--plan", "--gpu", "RTX4090", "--memory-limit", "100M") == 0
    out = capsys.readouterr().out
    assert "does not fit 100 MiB" in out


# how it ends --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unexported")
def test_a_run_ends_with_what_came_out_and_what_is_next(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe) == 0
    shown = capsys.readouterr()
    folder = recipe.parent / "run"
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert lines["trained"].startswith("20 steps in ")
    assert "400 MiB at its peak" in lines["memory"]
    assert lines["curves"] == str(folder / "curves.png")
    assert lines["next"] == f"forgegate export {folder} --out DIR"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "plan.json").read_text())["memory"]["total"] > 0
    assert "step 20 of 20: loss" in shown.err
    assert "data: 40 rows; 1 dropped as too long" in shown.err


@pytest.mark.usefixtures("unexported")
def test_events_for_programs(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe, "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 21))
    assert (events[-1]["event"], events[-1]["status"]) == ("end", "done")


@pytest.mark.usefixtures("unexported")
def test_a_finished_run_is_resumed_to_its_end(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe) == 0
    assert run(recipe) == 2
    assert run(recipe, "--resume") == 0
    told = capsys.readouterr()
    assert told.out.count("trained   20 steps") == 2
    assert "is finished already" in told.out + told.err
    assert run(recipe, "--resume", "--set", "max_steps=30") == 2
    assert "max_steps was 20 and is 30" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("nan", 1, "the loss is nan"),
        ("refuse", 2, "base_model: it is no model"),
        ("fail", 3, "the disk is full: free some space"),
        ("crash", 3, "RuntimeError: the fake crashed"),
        ("kill", 3, "killed from outside"),
    ],
)
def test_other_ends_have_codes_and_words(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, code: int, said: str
) -> None:
    behave(monkeypatch, end={"at": 7, "how": how})
    on_a_machine_that_has_memory(monkeypatch)
    assert run(recipe) == code
    err = capsys.readouterr().err
    assert said in err
    if code == 3:
        assert f"the checkpoint is of step 5; go on with: forgegate train {recipe} --resume" in err
    assert (recipe.parent / "run" / "curves.png").exists()


def test_out_of_memory_is_told_and_leaves_a_way_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    behave(monkeypatch, most=2)
    assert run(recipe, "--set", "seed=3") == 3
    err = capsys.readouterr().err
    assert "error: out of memory (train): the fake device is full" in err
    assert "error: memory by part: activations 1.6 GiB" in err
    assert "error: next step: micro_batch_size 4 -> 2" in err
    assert f"go on with: forgegate train {recipe} --resume --set seed=3" in err


@pytest.mark.usefixtures("unexported")
def test_retries_are_in_the_summary(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    behave(monkeypatch, most=2)
    assert run(recipe, "--on-oom", "retry") == 0
    out = capsys.readouterr().out
    assert "retries   1 after out of memory: micro_batch_size 4 -> 2" in out
    assert "effective batch still 8" in out


def test_publishing_without_a_gateway_is_foretold(
    recipe: Path, forgegate_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "export", lambda *_: None)
    assert run(recipe, "--publish", "support") == 2
    err = capsys.readouterr().err
    assert "warning: --publish support: no forgegate is running" in err
    assert f"forgegate train {recipe} --resume --publish support" in err
    assert "warning: --publish support: nothing was held out to evaluate it on: write val_set_size: 0.1" in err


# signals ------------------------------------------------------------------------------------------------------------


def follow(process: subprocess.Popen[str], sign: str) -> list[str]:
    """Standard error until a line has `sign`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if sign in line:
            return lines
    raise AssertionError("".join(lines))


def started(recipe: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*FAKE_TRAIN, str(recipe), *argv], cwd=ROOT, env=child_env(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_a_checkpoint_and_words(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    behave(monkeypatch, step_s=0.2)
    with started(recipe) as process:
        follow(process, "step 1 of")
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "stopping: a checkpoint is saved" in err
    assert f"go on with: forgegate train {recipe} --resume" in err
    assert "the checkpoint is of step" in err
    behave(monkeypatch)
    with started(recipe, "--resume") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "resuming" in err
    assert "trained   20 steps" in out


@pytest.mark.slow
def test_before_the_first_step_no_checkpoint_is_promised(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, load_s=1)
    with started(recipe) as process:
        follow(process, "load: loading nothing")
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopping: there is nothing new to save; Ctrl-C again ends it at once" in err
    assert "stopped; there is no checkpoint yet; go on with" in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (None, 141)])
def test_a_reader_who_leaves_costs_no_checkpoint(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None, code: int
) -> None:
    """As `2>&1 | tee log` does, which the same Ctrl-C ends."""
    behave(monkeypatch, step_s=0.2)
    with started(recipe, "--set", "save_steps=20") as process:
        follow(process, "step 1 of")
        assert process.stderr is not None
        process.stderr.close()
        if number is not None:
            os.kill(process.pid, number)
        assert process.wait(30) == code
    record = json.loads((recipe.parent / "run" / "record.json").read_text())
    assert record["status"] == "stopped"
    assert list((recipe.parent / "run" / "checkpoints").glob("checkpoint-*"))


@pytest.mark.slow
def test_twice_is_at_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, step_s=15)
    with started(recipe) as process:
        follow(process, "training 20 steps")
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        follow(process, "stopping:")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_nothing_outlives_a_kill(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, step_s=0.5)
    with started(recipe) as process:
        follow(process, "step 1 of")
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs([child], timeout=20)
    assert not alive
    behave(monkeypatch)
    with started(recipe, "--resume") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "resuming" in err
    assert "trained   20 steps" in out
    attempts = json.loads((recipe.parent / "run" / "record.json").read_text())["attempts"]
    assert [each["status"] for each in attempts] == ["failed", "done"]
    assert attempts[1]["resumed_from"] >= 1


def test_more_processes_than_gpus_are_refused(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "gpus", lambda: [{"name": "NVIDIA H200"}])
    assert run(recipe, "--processes", "2") == 2
    assert "each process takes a GPU, of which there is 1 here" in capsys.readouterr().err


def test_the_command_that_goes_on_says_all_that_was_asked() -> None:
    asked = ["my recipe.yaml", "--set", "seed=3", "--out", "runs/b", "--on-oom", "retry", "--memory-limit", "1k"]
    more = ["--candidate-only", "--rule", "non-inferior", "--max-items", "500"]
    args = train.parser().parse_args([*asked, "--publish", "support", "--model", "demo", "--token", "secret", *more])
    assert again_command(args) == (
        "forgegate train 'my recipe.yaml' --resume --set seed=3 --out runs/b --memory-limit 1024 --publish support --model demo "
        "--rule non-inferior --max-items 500 --candidate-only --on-oom retry"
    )
