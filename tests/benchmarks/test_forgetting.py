"""The benchmark of forgetting: its settings are recipes, its tables say what was found, a later call goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import forgetting
from benchmarks.forgetting_report import markdown
from benchmarks.forgetting_settings import GENERAL, SETTINGS


def one(name: str, difference: float, state: str) -> dict[str, Any]:
    bounds = {"lower": difference - 1, "upper": difference + 1}
    return {"name": name, "num_items": 1000, "difference": difference, **bounds, "state": state}


def found(setting: str, facts: float, state: str, outcome: str, cpu: str = "a CPU") -> dict[str, Any]:
    differences = {
        "tickets": one("tickets", 97.0, "better"),
        "facts": one("facts", facts, state),
        "recall": one("recall", 0.5, "kept"),
    }
    return {
        "setting": setting, "changes": {"num_epochs": "4"}, "num_steps": 400, "loss": 0.1, "eval_loss": 0.2, "seconds": 61.2,
        "wall_s": 70.0, "penalty": None, "machine": {"cpu": cpu, "cores": 2, "date": "today", "versions": {"torch": "2"}},
        "scores": {"tickets": 0.97, "tickets_comply": 1.0, "facts": 0.8, "recall": 0.9},
        "judged": {"outcome": outcome, "looks": 1, "reasons": [], "differences": differences},
    }  # fmt: skip


def test_every_setting_is_a_recipe(tmp_path: Path) -> None:
    from finetune.recipe.reading import read

    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "eval.jsonl").write_text('{"prompt": "c", "completion": "d"}\n')
    for changes in SETTINGS.values():
        rows = {"datasets.0.path": f"{tmp_path}/rows.jsonl", "test_datasets.0.path": f"{tmp_path}/eval.jsonl"}
        given = {**rows, **{key: value.replace(GENERAL, f"{tmp_path}/rows.jsonl") for key, value in changes.items()}}
        assert read(forgetting.RECIPE, [f"{key}={value}" for key, value in given.items()]).recipe


def test_the_tables() -> None:
    result = {
        "recipe": "demo-cpu.yaml",
        "base": {"facts": 0.97, "recall": 0.9, "tickets": 0.0, "tickets_comply": 0.0},
        "settings": [
            found("forgets", -17.0, "forgotten", "NO-GO"), found("replay", -0.2, "kept", "GO", "another CPU"),
            found("open", -2.0, "undecided", "INCONCLUSIVE"), {"setting": "left", "is_left": True},
        ],
    }  # fmt: skip
    lines = markdown(result)
    assert lines[:2] == ["- a CPU, 2 cores; torch 2: forgets, open", "- another CPU, 2 cores; torch 2: replay"]
    assert (
        "| forgets | `num_epochs: 4` | 400 | 97.0 % | facts | -17.0 (-18.0 to -16.0) | 1,000 | -8.2 | NO-GO |" in lines
    )
    assert any(line.endswith("| INCONCLUSIVE at 1,000 items |") for line in lines)
    assert "| facts | 97.0 % | -17.0 ** | -0.2 | -2.0 |" in lines
    assert "Not measured: left: not begun within the budget" in lines


def test_a_setting_that_was_measured_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = next(iter(SETTINGS))
    called: list[str] = []
    faults: list[str] = []

    def call(log: Path, module: str, *argv: object) -> list[str]:
        called.append(module)
        if faults and module == "finetune.demo_skills":
            raise forgetting.StepError(faults.pop())
        words = list(map(str, argv))
        if module == "finetune.demo_skills":
            scores = {
                each: {"clusters": ["a"], "scores": [1.0]} for each in ("facts", "recall", "tickets", "tickets_comply")
            }
            judged = found("", 0.0, "kept", "GO")["judged"]
            Path(words[words.index("--out") + 1]).write_text(
                json.dumps({"num_items": 500, "scores": scores, "judged": judged})
            )
        return ['{"event": "done", "num_steps": 3, "loss": 0.1, "eval_loss": 0.2, "seconds": 4.0}']

    monkeypatch.setattr(forgetting, "_call", call)
    told = ["--workdir", str(tmp_path / "work"), "--out", str(tmp_path / "out.json"), "--settings", name]
    (tmp_path / "work").mkdir()
    assert forgetting.main(told) == 0
    assert called == [
        "finetune.demo_tickets",
        "finetune.demo_general",
        "finetune.demo_skills",
        "finetune.train",
        "finetune.demo_skills",
    ]
    assert forgetting.main(told) == 0
    assert len(called) == 5
    content = json.loads((tmp_path / "out.json").read_bytes())
    assert content["settings"][0]["num_steps"] == 3
    assert content["settings"][0]["machine"]["cores"] >= 1
    assert "GO" in capsys.readouterr().out
    called.clear()
    faults.append("no space left")
    other = [*told[:-1], list(SETTINGS)[1]]
    assert forgetting.main(other) == 1
    assert "no space left" in capsys.readouterr().out
    assert forgetting.main(other) == 0
    assert called == [
        "finetune.train",
        "finetune.demo_skills",
        "finetune.demo_skills",
    ]  # scored, and not trained, again
    assert forgetting.main([*told, "--items", "501"]) == 2
    assert "holds results on 500 items" in capsys.readouterr().err


def test_bad_usage_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert forgetting.main(["--out", "some.json", "--settings", "nothing"]) == 2
    assert "there is no setting 'nothing'" in capsys.readouterr().err
    assert forgetting.main(["--out", "some.txt"]) == 2


def test_a_program_that_does_not_end_is_killed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "TIMEOUT_S", 0.2)
    with pytest.raises(forgetting.StepError, match=r"http\.server did not end within 0\.2 s, and was killed"):
        forgetting._call(tmp_path / "log", "http.server", "--bind", "127.0.0.1", "0")
