"""`forgegate data collect`, from a log as the gateway writes it to rows that the doctor reads."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from finetune import data
from finetune.dataset.collect import collect, files_of
from finetune.dataset.errors import DataUnusable
from tests.finetune.dataset.test_conversations import line

TOPICS = (
    "the delivery of a sofa",
    "a broken lamp",
    "an invoice in March",
    "how to change the password",
    "opening hours on Sunday",
)


def talk(number: int, **changes: Any) -> bytes:
    question = f"I would like to know about {TOPICS[number]}, could you tell me more?"
    answer = {"role": "assistant", "content": f"About {TOPICS[number]}: yes."}
    return line(**{"messages": [{"role": "user", "content": question}], "answer": answer} | changes)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(each + b"\n" for each in lines))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_bytes().splitlines()]


def test_rows_are_what_is_left(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log",
        talk(0),
        talk(1),
        talk(0),
        b"",
        b"{torn",
        talk(2, status=502),
        talk(3, finish_reason="length"),
        talk(4),
    )
    out = tmp_path / "rows.jsonl"
    found = collect([log], out)
    assert found.as_json() == {
        "files": [str(log)], "read": 7, "of_other_models": 0, "written": 3,
        "left_out": {"unreadable": 1, "failed": 1, "cut": 1, "duplicate": 1}, "masked": {},
    }  # fmt: skip
    assert [row["messages"][0]["content"] for row in rows_of(out)] == [
        f"I would like to know about {TOPICS[number]}, could you tell me more?" for number in (0, 1, 4)
    ]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_near_copies_are_left_out(tmp_path: Path) -> None:
    question = "Hello, could you please tell me when my order of the large grey sofa will be delivered to my address?"
    twins = [question, question.replace("Hello, could", "Could").replace("?", "??")]
    lines = [
        line(messages=[{"role": "user", "content": text}], answer={"role": "assistant", "content": "On Monday."})
        for text in twins
    ]
    found = collect([write(tmp_path / "log", *lines, talk(1))], tmp_path / "rows.jsonl")
    assert found.num_written == 2
    assert found.left_out.total() == 1


def test_of_a_conversation_its_longest_state_is_kept(tmp_path: Path) -> None:
    first = [{"role": "user", "content": "When do you open on Sundays?"}]
    second = [
        *first,
        {"role": "assistant", "content": "At ten."},
        {"role": "user", "content": "And when do you close?"},
    ]
    lines = [
        line(messages=second, answer={"role": "assistant", "content": "At six."}),
        line(messages=first, answer={"role": "assistant", "content": "At ten."}),
        line(messages=first, answer={"role": "assistant", "content": "We open at ten in the morning."}),
    ]
    out = tmp_path / "rows.jsonl"
    found = collect([write(tmp_path / "log", *lines)], out)
    assert found.left_out["part"] == 1
    assert [len(row["messages"]) for row in rows_of(out)] == [4, 2]


def test_personal_data_is_masked_whatever_the_gateway_did(tmp_path: Path) -> None:
    lines = [
        line(
            messages=[
                {"role": "user", "content": "제 번호는 010-1234-5678 이고 메일은 kim@example.com 입니다. 전화 주세요."}
            ]
        )
    ]
    out = tmp_path / "rows.jsonl"
    found = collect([write(tmp_path / "log", *lines)], out)
    assert dict(found.masked) == {"phone": 1, "email": 1}
    assert rows_of(out)[0]["messages"][0]["content"] == "제 번호는 [PHONE] 이고 메일은 [EMAIL] 입니다. 전화 주세요."


def test_only_some_models(tmp_path: Path) -> None:
    log = write(tmp_path / "log", talk(0), talk(1, model="demo", resolved="demo@ffffffffffff"))
    assert collect([log], tmp_path / "a", frozenset({"demo"})).as_json()["written"] == 1
    assert collect([log], tmp_path / "b", frozenset({"support@0123456789ab"})).num_others == 1
    assert collect([log], tmp_path / "c", frozenset({"demo", "support"})).num_written == 2


def test_full_files_are_read_first(tmp_path: Path) -> None:
    for name in ("log", "log.1", "log.10", "log.2", "log.bak", "other.1"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in files_of([tmp_path / "log", tmp_path / "log.1"])] == [
        "log.10",
        "log.2",
        "log.1",
        "log",
    ]
    (tmp_path / "log").unlink()
    assert [path.name for path in files_of([tmp_path / "log"])] == ["log.10", "log.2", "log.1"]


def test_an_empty_log_gives_no_rows(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert collect([write(tmp_path / "log")], out).num_written == 0
    assert out.read_bytes() == b""


def test_a_log_is_never_written_over(tmp_path: Path) -> None:
    log = write(tmp_path / "log", talk(0))
    with pytest.raises(DataUnusable, match="one of the files that are read"):
        collect([log], log)
    with pytest.raises(DataUnusable, match=r"none: no such file: forgegate\.yaml names it under conversations\.file"):
        collect([tmp_path / "none"], tmp_path / "rows.jsonl")


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "log", talk(0), talk(1, error="engine_reset"))
    out = str(tmp_path / "rows.jsonl")
    assert data.main(["collect", "--from-access-log", str(log), "--out", out]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{out}: 1 rows of 2 conversations in 1 file(s)", "  left out 1: requests that failed, or whose client left",
        f"next: forgegate data doctor {out}",
    ]  # fmt: skip
    assert data.main(["collect", "--from-access-log", str(log), "--out", out, "--json", "--model", "nobody"]) == 0
    assert json.loads(capsys.readouterr().out)["of_other_models"] == 1
    assert data.main(["collect", "--from-access-log", str(tmp_path / "none"), "--out", out]) == 2
    assert "no such file" in capsys.readouterr().err
