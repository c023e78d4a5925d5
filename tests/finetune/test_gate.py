"""`forgegate gate` on what was evaluated before, and what is typed wrong. With a gateway: tests/e2e/test_loop.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune import release
from finetune.evaluation.result import PAGE, write
from finetune.gate import main
from finetune.gating.document import digest, read
from finetune.release import VERDICT
from tests.finetune.verdicts import BASE, NEW, OLD, Models, suite, written

NUMBERS = {"tickets": 500, "facts": 500, "arithmetic": 500}


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The new one knows the task and forgot facts, the old one is like the base."""
    monkeypatch.setattr(release, "write_all", written)  # tables and pages show what these models do not have
    models = Models({NEW: {"facts": 0.8}, OLD: {"tickets": 0.2}, "demo": {"tickets": 0.2}})
    return write(models.evaluate(suite(), None, ("demo", OLD, NEW), NUMBERS, lambda *_: None, None), tmp_path / "seen")


def gate(*argv: object) -> int:
    return main([str(each) for each in argv])


def test_no_go_is_shown_with_what_helps(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(result, "--live", "demo", "--candidate", NEW) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{NEW} in place of the base {BASE}, rule improve: NO-GO"
    rows = {line.split()[0]: line.split()[-1] for line in lines[2:5]}
    assert rows == {"tickets": "better", "facts": "forgotten", "arithmetic": "kept"}
    remedies = [line.split(":")[0].strip() for line in lines if line.strip()[:2] in {f"{n}." for n in range(1, 8)}]
    assert remedies == [
        "1. more general data", "2. fewer epochs", "3. lower rate", "4. lower rank", "5. attention only", "6. lower alpha", "7. EWC",
    ]  # fmt: skip


def test_the_recipe_of_the_run_says_which_line(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("base_model: demo\nnum_epochs: 3\nlora_r: 16\n")
    assert gate(result, "--live", "demo", "--candidate", NEW, "--run", tmp_path) == 1
    out = capsys.readouterr().out
    assert "line 2: `num_epochs: 3` -> `num_epochs: 2`" in out
    assert "line 3: `lora_r: 16` -> `lora_r: 8`" in out
    assert "add `general: {path: general.jsonl, share: 0.2}`" in out


def test_go_is_a_document_that_the_gateway_takes(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "verdicts" / "monday"
    assert (
        gate(result.parent, "--live", OLD, "--candidate", "demo", "--out", out, "--rule", "non-inferior", "--json") == 0
    )
    event = json.loads(capsys.readouterr().out)
    kept = json.loads((out / VERDICT).read_bytes())
    assert (event["event"], event["outcome"], event["is_posted"]) == ("verdict", "GO", False)
    assert event["digest"] == digest(kept)
    assert read(kept).bound.live[0].adapter == OLD
    assert json.loads((out / PAGE).read_bytes()) == kept


def test_a_task_that_is_not_better_is_what_to_look_at(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(result, "--live", "demo", "--candidate", OLD) == 1
    out = capsys.readouterr().out
    assert "INCONCLUSIVE" in out
    assert "look at tickets: " in out
    assert "forgetting" not in out


def test_a_model_that_was_not_asked(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(result, "--live", "nobody", "--candidate", NEW) == 2
    assert f"nobody was not asked; there are demo, {BASE}, {OLD}, {NEW}" in capsys.readouterr().err
    assert gate(result.parent / "absent.json", "--live", "demo", "--candidate", NEW) == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--candidate", NEW), "which alias?"),
        (("--alias", "support"), "--candidate"),
        (("--alias", "support", "--candidate", NEW), "which suite?"),
        (("--alias", "support", "--candidate", NEW, "--suite", "s.yaml", "--live", "demo"), "--live goes with RESULT"),
        (("seen", "--candidate", NEW), "RESULT goes with --live"),
        (("seen", "--candidate", NEW, "--live", "demo", "--suite", "s.yaml"), "--suite asks anew"),
        (("--alias", "support", "--candidate", NEW, "--suite", "s.yaml", "--rule", "better"), "invalid choice"),
        (("--alias", "support", "--candidate", NEW, "--suite", "s.yaml", "--max-items", "0"), "--max-items"),
    ],
)
def test_usage_is_checked_first(argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gate(*argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_gateway(forgegate_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate("--alias", "support", "--candidate", NEW, "--suite", tmp_path / "absent.yaml") == 2
    assert "no forgegate is running" in capsys.readouterr().err
