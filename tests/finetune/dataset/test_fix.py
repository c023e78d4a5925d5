"""The cleaned file: every row is written or counted, what is written is clean."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from finetune.dataset.checks import CHECKS
from finetune.dataset.doctor import Options, examine
from finetune.dataset.errors import DataUnusable
from finetune.dataset.fix import Cleaned, write_clean
from finetune.dataset.page import write_html
from finetune.dataset.progress import Unwatched
from finetune.dataset.report import lines, report_of
from finetune.dataset.spool import Spool
from tests.finetune.dataset import campaign, faults
from tests.finetune.dataset.tickets import distinct


def clean(path: Path, out: Path, is_masking: bool = False) -> tuple[Cleaned, dict[str, Any], list[dict[str, Any]]]:
    with Spool() as spool:
        found = examine([path], spool, Options())
        cleaned = write_clean(found, out, is_masking, Unwatched())
        report = report_of(found, cleaned, out)
    return cleaned, report, [json.loads(line) for line in out.read_text().splitlines()]


def as_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("is_masking", [False, True])
def test_what_is_written_is_clean_and_all_else_is_counted(tmp_path: Path, is_masking: bool) -> None:
    rng = Random(3)
    path = campaign.plant(rng, distinct(rng, 600), 600, faults.ROWS).write(tmp_path / "set.jsonl")
    cleaned, report, rows = clean(path, tmp_path / "clean.jsonl", is_masking)
    assert cleaned.num_written == len(rows)
    assert cleaned.num_written + cleaned.rejected.total() == cleaned.num_rows == report["num_records"]
    assert ("personal_data" in cleaned.rejected) != is_masking
    assert bool(cleaned.masked) == is_masking
    again, second, _ = clean(tmp_path / "clean.jsonl", tmp_path / "again.jsonl")
    repairable = {check.name for check in CHECKS if check.fix != "nothing: it is yours to decide"}
    assert {
        check["name"]: check["rows"] for check in second["checks"] if check["rows"] and check["name"] in repairable
    } == {}
    assert again.num_written == len(rows)


def test_repairs_and_masks(tmp_path: Path) -> None:
    question, answer = (
        "배송은 언제 시작되나요? 사흘이 지났습니다.",
        "오늘 오후에 출고되어 내일 오전에 도착할 예정입니다.",
    )
    rows = [
        {"instruction": question.encode().decode("latin-1"), "input": "", "output": answer, "id": 7},
        {"instruction": "제 번호는 010-1234-5678입니다. 전화 주시겠어요?", "output": f" {answer} "},
    ]
    cleaned, _, written = clean(as_lines(tmp_path / "a.jsonl", rows), tmp_path / "out.jsonl", is_masking=True)
    assert written == [
        {"instruction": question, "input": "", "output": answer, "id": 7},
        {"instruction": "제 번호는 [PHONE]입니다. 전화 주시겠어요?", "output": answer},
    ]
    assert (dict(cleaned.repaired), dict(cleaned.masked)) == ({"encoding": 1}, {"phone": 1})


def test_a_repaired_row_may_turn_out_to_be_a_copy(tmp_path: Path) -> None:
    row = {"instruction": "배송은 언제 시작되나요?", "output": "오늘 오후에 출고됩니다."}
    broken = {**row, "instruction": row["instruction"].encode().decode("latin-1")}
    cleaned, _, written = clean(as_lines(tmp_path / "a.jsonl", [broken, row]), tmp_path / "out.jsonl")
    assert written == [row]
    assert dict(cleaned.rejected) == {"duplicate": 1}


def test_a_repaired_row_is_checked_again(tmp_path: Path) -> None:
    """What is personal or leaks in a broken row shows only when it can be read."""
    question = "제 번호 010-1234-5678로 배송 일정을 알려 주세요."
    held_out = as_lines(tmp_path / "eval.jsonl", [{"instruction": "반품 주소가 어디인가요?", "output": "본사입니다."}])
    rows = [
        {"instruction": text.encode().decode("latin-1"), "output": "내일 오전에 도착할 예정입니다."}
        for text in (question, "반품 주소가 어디인가요?", "교환은 며칠이나 걸리나요?")
    ]
    with Spool() as spool:
        found = examine([as_lines(tmp_path / "a.jsonl", rows)], spool, Options(eval_paths=(held_out,)))
        cleaned = write_clean(found, tmp_path / "out.jsonl", False, Unwatched())
    assert dict(cleaned.rejected) == {"personal_data": 1, "leakage": 1}
    assert cleaned.num_written == 1


def test_the_answer_that_most_copies_give_is_kept(tmp_path: Path) -> None:
    rows = [
        {"instruction": "반품 기한이 언제까지인가요?", "output": f"받으신 날부터 {days}일 안입니다."}
        for days in (7, 14, 7)
    ]
    cleaned, _, written = clean(as_lines(tmp_path / "a.jsonl", rows), tmp_path / "out.jsonl")
    assert written == rows[:1]
    assert dict(cleaned.rejected) == {"conflict": 1, "duplicate": 1}


def test_a_missing_end_mark_is_added(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{word} 배송은 언제 되나요?", "completion": "내일 도착합니다.<|im_end|>"}
        for word in ("의자", "책상", "침대", "소파")
    ]
    rows[2]["completion"] = "내일 도착합니다."
    cleaned, _, written = clean(as_lines(tmp_path / "a.jsonl", rows), tmp_path / "out.jsonl")
    assert all(row["completion"] == "내일 도착합니다.<|im_end|>" for row in written)
    assert dict(cleaned.repaired) == {"eos_missing": 1}


def test_input_is_never_overwritten(tmp_path: Path) -> None:
    path = as_lines(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a"}])
    before = path.read_bytes()
    with pytest.raises(DataUnusable, match="one of the files that are read"):
        clean(path, path)
    with pytest.raises(DataUnusable, match="folder"):
        clean(path, tmp_path)
    assert path.read_bytes() == before


def test_the_page_shows_what_the_terminal_says_and_escapes_it(tmp_path: Path) -> None:
    rows = [{"instruction": "<script>alert(1)</script> 무엇인가요?", "output": ""}]
    _, report, _ = clean(as_lines(tmp_path / "a.jsonl", rows), tmp_path / "out.jsonl")
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert all(f">{check.name}</th>" in page for check in CHECKS)
    text = "\n".join(lines(report))
    assert "error    empty                 1" in text
    assert "rejected: empty 1" in text
