"""The example's data: the same everywhere, dirty as it says, clean once the doctor has been there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.data import main as data
from finetune.demo_score import fields_of
from finetune.evaluation.suite import load
from finetune.recipe.reading import read

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy/examples/support-tickets"
NUM_ROWS = 400


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("support_tickets_data", EXAMPLE / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


MAKE = module()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the files of `NUM_ROWS` tickets, and what the doctor made of them."""
    out = tmp_path_factory.mktemp("example")
    assert MAKE.main(["--out", str(out / "data"), "--rows", str(NUM_ROWS)]) == 0
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    out = folder / "data"
    argv = [
        "doctor", str(out / "tickets.csv"), str(out / "tickets.jsonl"), "--eval", str(out / "held-out.jsonl"), "--mask",
        "--fix", str(out / "clean.jsonl"),
    ]  # fmt: skip
    assert data(argv) == 1
    found: dict[str, Any] = json.loads((out / "clean.report.json").read_bytes())
    return found


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    one, two, other = (MAKE.files(200, seed) for seed in (3, 3, 4))
    assert one == two
    assert all(one.content[name] != other.content[name] for name in one.content)
    assert one.content["held-out.jsonl"] == MAKE.files(100, 3).content["held-out.jsonl"], "whatever is trained on"


def test_more_rows_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert MAKE.main(["--out", str(tmp_path), "--rows", str(MAKE.MOST_ROWS + 1)]) == 2
    assert f"from 100 to {MAKE.MOST_ROWS:,}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_fault_that_was_planted_is_found(report: dict[str, Any]) -> None:
    planted = MAKE.files(NUM_ROWS).planted
    found = {one["name"]: one["count"] for one in report["checks"]}
    assert planted.keys() >= MAKE.FAULTS.keys()
    assert {name: (count, found.get(name, 0)) for name, count in planted.items() if found.get(name, 0) < count} == {}


def test_what_is_left_is_clean(folder: Path, report: dict[str, Any]) -> None:
    lines = (folder / "data" / "clean.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    answers = [
        row["messages"][-1]["content"] if "messages" in row else row.get("output", row.get("답변")) for row in rows
    ]
    assert len(rows) > 0.85 * NUM_ROWS
    assert all(fields_of(answer) for answer in answers)
    assert (
        data(["doctor", str(folder / "data" / "clean.jsonl"), "--eval", str(folder / "data" / "held-out.jsonl")]) == 0
    )


def test_held_out_tickets_are_in_no_other_file(folder: Path) -> None:
    held_out = [json.loads(line) for line in (folder / "data" / "held-out.jsonl").read_text().splitlines()]
    assert len(held_out) == MAKE.NUM_HELD_OUT
    assert len({row["id"] for row in held_out}) == len(held_out)
    assert 40 < len({row["cluster"] for row in held_out}) < len(held_out) / 5
    clean = (folder / "data" / "clean.jsonl").read_text()
    assert not [row for row in held_out if row["messages"][0]["content"] in clean]


def test_suite_and_recipes_fit_the_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("suite.yaml", "ticket.schema.json", "recipe.yaml", "recipe-without-replay.yaml"):
        (folder / name).write_bytes((EXAMPLE / name).read_bytes())
    for name in ("train", "eval"):
        (folder / "data" / f"{name}.jsonl").write_bytes((folder / "data" / "held-out.jsonl").read_bytes())
    monkeypatch.chdir(folder)
    suite = load(Path("suite.yaml"))
    assert (suite.task.name, suite.rule) == ("tickets", "improve")
    assert {"facts", "smalltalk", "ticket-format"} < {one.name for one in suite.general}
    with_replay, without = (read(Path(name)).recipe for name in ("recipe.yaml", "recipe-without-replay.yaml"))
    assert with_replay.evaluation == folder / "suite.yaml"
    assert (with_replay.data.general_share, without.data.general) == (0.2, ())
    assert (with_replay.steps, with_replay.lora) == (without.steps, without.lora), "nothing else is different"
