"""What the loop's benchmark types: README's lines, with more on top, in a shell beside the gateway."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import loop_stages_commands
from benchmarks.loop_stages_commands import (
    ALIAS,
    DATA,
    EXAMPLE,
    MISLABEL,
    PUBLISH,
    RETRAIN,
    RETRAIN_LINE,
    ROLLBACK,
    ROOT,
    RUNS,
    TRAIN,
    TRAIN_WRONG,
    Amounts,
    Shell,
    Step,
    StepError,
    steps,
)


def test_every_command_of_readme_is_a_known_stage() -> None:
    found = steps()
    assert [step.name for step in found] == [DATA, "doctor", "split", PUBLISH, TRAIN, "chat", ROLLBACK]
    assert {step.name: step.exit_codes for step in found if step.exit_codes != (0,)} == {"doctor": (1,)}
    assert f"publish {ALIAS}" in next(step.line for step in found if step.name == TRAIN)
    assert not any("#" in step.line for step in found)


def test_a_readme_without_them_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# forgegate\n\n## Fine-tune and hot-swap\n\n```bash\nls\n```\n")
    monkeypatch.setattr(loop_stages_commands, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="has no commands that begin with"):
        steps()


def test_the_short_form_asks_for_less_and_goes_live_all_the_same() -> None:
    whole, short = ({step.name: step.typed for step in steps(Amounts(is_tiny=is_tiny))} for is_tiny in (False, True))
    assert whole[TRAIN].endswith("--publish support --json")
    assert "--force" in short[TRAIN]
    assert short[DATA].startswith(whole[DATA])
    assert {step.name: step.typed for step in steps(Amounts(max_items=450))}[TRAIN].endswith("--json --max-items 450")


def test_more_of_everything_is_asked_of_every_training() -> None:
    amounts = Amounts(max_items=450, rows=1900, settings=("num_epochs=4", "ewc.path=my rows.jsonl"))
    typed = {step.name: step.typed for step in steps(amounts, has_retrains=True)}
    assert typed[DATA].endswith("make_data.py --rows 1900")
    for name in (TRAIN, RETRAIN, TRAIN_WRONG):
        assert "--set num_epochs=4 --set 'ewc.path=my rows.jsonl' --max-items 450" in typed[name], name


def test_the_training_takes_these_options() -> None:
    from finetune.train import parser

    for amounts in (Amounts(is_tiny=True), Amounts(max_items=450, settings=("num_epochs=3",))):
        trainings = [step for step in steps(amounts, has_retrains=True) if step.name in RUNS]
        assert [step.name for step in trainings] == [TRAIN, RETRAIN, TRAIN_WRONG]
        for step in trainings:
            options = parser().parse_args(shlex.split(step.typed)[2:])
            assert options.publish == ALIAS
            assert options.rule == (None if step.name == TRAIN else "non-inferior")
            assert (options.force is None) is (step.name == TRAIN_WRONG or not amounts.is_tiny)


def test_the_retrain_is_that_of_readme() -> None:
    assert f"`{RETRAIN_LINE}`" in (ROOT / "README.md").read_text("utf-8")


def test_retrains_come_between_the_training_and_the_rollback() -> None:
    names = [step.name for step in steps(has_retrains=True)]
    assert names[names.index(TRAIN) :] == [TRAIN, RETRAIN, MISLABEL, TRAIN_WRONG, "chat", ROLLBACK]
    assert {step.name: step.exit_codes for step in steps(has_retrains=True)}[TRAIN_WRONG] == (1,)


def shell(folder: Path, *train_path: str) -> Shell:
    return Shell(folder, folder / "home", train_path)


async def test_commands_are_typed_where_the_example_is(tmp_path: Path) -> None:
    line = """forgegate --version && python -c 'import os, sys; print(os.environ["FORGEGATE_HOME"], sys.path[1:3])' && ls"""
    done = await shell(tmp_path, str(tmp_path / "site")).type(Step("look", line), 60)
    assert done.exit_code == 0
    assert f"{tmp_path / 'home'} {[str(tmp_path / 'site'), str(ROOT)]}" in done.out
    assert "recipe.yaml" in done.out.split()
    assert done.phases == []


async def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    line = """echo '{"event": "stage", "name": "load"}'; echo words; echo 12; sleep 0.2; echo '{"event": "done"}'"""
    done = await shell(tmp_path).type(Step(TRAIN, line), 60)
    assert [one.key for one in done.told] == ["stage load", "done"]
    assert done.told[1].at_s - done.told[0].at_s > 0.1
    assert [one.name for one in done.phases] == ["plan", "prepare", "export"]


@pytest.mark.parametrize(
    ("line", "timeout_s", "said", "exit_code"),
    [
        ("echo out; echo why >&2; exit 3", 60, "exit code 3:\nout\nwhy", 3),
        ("""echo '{"event": "stage"}'; sleep 60""", 1.0, "did not end within the budget", None),
    ],
)
async def test_what_does_not_end_well_is_said_with_what_it_told_until_then(
    tmp_path: Path, line: str, timeout_s: float, said: str, exit_code: int | None
) -> None:
    with pytest.raises(StepError, match=re.escape(said)) as caught:
        await shell(tmp_path).type(Step(TRAIN, line), timeout_s)
    done = caught.value.done
    assert done.exit_code == exit_code
    assert done.seconds > 0
    assert [one.name for one in done.phases] == (["plan"] if exit_code else ["plan", "prepare"])


async def test_what_a_command_leaves_behind_is_killed_with_it(tmp_path: Path) -> None:
    with pytest.raises(StepError):
        await shell(tmp_path).type(Step("fail", "sleep 60 & echo $! >child; wait"), 0.5)
    pid = int((tmp_path / EXAMPLE / "child").read_text())
    await asyncio.sleep(0.1)
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
