"""Labels that are wrong: as many as were asked for, nothing else, and the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.wrong_labels import LABELS, main
from finetune import demo_tickets


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    assert demo_tickets.main(["--out", str(tmp_path), "--rows", "400"]) == 0
    return tmp_path / "train.jsonl"


def answers(path: Path) -> list[dict[str, object]]:
    return [json.loads(json.loads(line)["messages"][-1]["content"]) for line in path.read_text("utf-8").splitlines()]


def test_a_tenth_of_each_label_is_wrong_and_all_else_is_as_it_was(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "wrong.jsonl"
    assert main([str(rows), "--out", str(out)]) == 0
    pairs = list(zip(answers(rows), answers(out), strict=True))
    for label in LABELS:
        changed = [after[label] for before, after in pairs if before[label] != after[label]]
        assert 400 * 0.1 * 0.5 < len(changed) < 400 * 0.1 * 1.6, label
        assert set(changed) <= {before[label] for before, _ in pairs}, "what it may be"
    for before, after in pairs:
        assert list(before) == list(after)
        assert {name: value for name, value in before.items() if name not in LABELS}.items() <= after.items()
    asked = [
        [json.loads(line)["messages"][:-1] for line in path.read_text("utf-8").splitlines()] for path in (rows, out)
    ]
    assert asked[0] == asked[1]


def test_rows_as_the_doctor_cleans_them_are_read_as_well(rows: Path, tmp_path: Path) -> None:
    """The same labels become wrong, whatever form the rows have."""
    plain, out, wrong = (tmp_path / name for name in ("plain.jsonl", "out.jsonl", "wrong.jsonl"))
    chats = [json.loads(line)["messages"] for line in rows.read_text("utf-8").splitlines()]
    lines = [json.dumps({"instruction": chat[0]["content"], "output": chat[-1]["content"]}) for chat in chats]
    plain.write_text("\n".join(lines), "utf-8")
    assert main([str(plain), "--out", str(out)]) == main([str(rows), "--out", str(wrong)]) == 0
    found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [json.loads(row["output"]) for row in found] == answers(wrong)
    assert [row["instruction"] for row in found] == [chat[0]["content"] for chat in chats]


def test_the_same_seed_gives_the_same_bytes(rows: Path, tmp_path: Path) -> None:
    written = []
    for seed in (1, 1, 2):
        assert main([str(rows), "--out", str(tmp_path / "out"), "--seed", str(seed)]) == 0
        written.append((tmp_path / "out").read_bytes())
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize(
    ("line", "share", "said"),
    [
        ('{"messages": []}', "0.1", "wrong.jsonl:1: no answer in one line of JSON"),
        ('{"messages": [{"role": "assistant", "content": "{}"}]}', "0.1", "the answer has no 'color'"),
        ('{"messages": [{"role": "assistant", "content": "{}"}]}', "1", "--share 1: between 0 and 1"),
    ],
)
def test_bad_input_is_said(
    line: str, share: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(line + "\n", "utf-8")
    assert main([str(path), "--out", str(tmp_path / "out"), "--share", share]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
