"""Files of every kind and encoding give the same records."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from finetune.dataset.errors import DataUnusable
from finetune.dataset.json_stream import Scanner, Unreadable
from finetune.dataset.reading import Source

ROWS = [
    {"instruction": "환불은 언제 되나요?", "input": "", "output": '영업일 3일 안에 "카드"로 돌려 드립니다.'},
    {"instruction": "Where is my order?", "input": "AB-1", "output": "On its way,\nit arrives tomorrow."},
]


def jsonl(rows: list[dict[str, str]] = ROWS) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


def records(path: Path) -> list[Any]:
    return list(Source(path).records())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", jsonl()), ("a.csv", as_csv()), ("a.csv", as_csv(";")), ("a.tsv", as_csv("\t"))]
)
def test_text_files(tmp_path: Path, encoding: str, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert records(path) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS, ensure_ascii=False),
        json.dumps(ROWS, ensure_ascii=False, indent=2),
        json.dumps({"version": 1, "meta": {"a": [1]}, "data": ROWS}, ensure_ascii=False),
        "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in ROWS),
        jsonl(),
    ],
    ids=["array", "indented", "within an object", "one after the other", "lines"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_in_every_layout(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert records(path) == ROWS


def test_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "empty"
    sheet = book.create_sheet("tickets")
    sheet.append([None, None, None])
    sheet.append(list(ROWS[0]))
    for row in ROWS:
        sheet.append(list(row.values()))
    book.save(tmp_path / "a.xlsx")
    assert [{name: value or "" for name, value in record.items()} for record in records(tmp_path / "a.xlsx")] == ROWS


def test_parquet(tmp_path: Path) -> None:
    chats = [{"messages": [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]}]
    for name, rows in (("a.parquet", ROWS), ("chat.parquet", chats)):
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        assert records(tmp_path / name) == rows


def test_lines_of_different_encodings_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    lines = [json.dumps({**ROWS[0], "output": f"답변 {place}"}, ensure_ascii=False) for place in range(10)]
    path.write_bytes(
        b"\n".join(line.encode("cp949" if place % 3 == 0 else "utf-8") for place, line in enumerate(lines))
    )
    source = Source(path)
    assert [record["output"] for record in source.records()] == [f"답변 {place}" for place in range(10)]
    assert source.encoding == "mixed: UTF-8 6 of 10 lines, cp949 4 of 10 lines"


def test_fields_of_different_encodings_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes(b"instruction,output\n" + "환불 문의".encode("cp949") + b"," + "확인했습니다".encode() + b"\n")
    assert records(path) == [{"instruction": "환불 문의", "output": "확인했습니다"}]


def test_what_no_encoding_explains_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"instruction": "a", "output": "\xff\xfe\xff"}\n')
    source = Source(path)
    assert "\ufffd" in next(iter(source.records()))["output"]
    assert source.encoding == "undecodable"


def test_a_broken_line_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl()[:-5] + "\n" + jsonl())
    assert [type(record) for record in records(path)] == [dict, Unreadable, dict, dict]


def test_an_array_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS)[:-1])
    assert [type(record) for record in records(path)] == [dict, dict, Unreadable]


def test_a_large_array_is_read_in_parts() -> None:
    text = json.dumps([{"output": "가" * 1000, "number": place} for place in range(2000)], ensure_ascii=False)
    pieces = iter([text[start : start + 70_001] for start in range(0, len(text), 70_001)])
    scanner = Scanner(pieces)
    most = 0
    numbers = []
    for record in scanner.records():
        numbers.append(record["number"])
        most = max(most, len(scanner._text))
    assert numbers == list(range(2000))
    assert most < 1_000_000 < len(text)


def test_a_row_with_too_many_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("instruction,output\na,b\nc,d,e\nf\n")
    found = records(path)
    assert found[0] == {"instruction": "a", "output": "b"}
    assert "3 cells in a row of 2 columns" in found[1].why
    assert found[2] == {"instruction": "f", "output": ""}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.xls", b"\xd0\xcf\x11\xe0rest", "save it as .xlsx"),
        ("a.xlsx", b"instruction,output", "no XLSX file"),
        ("a.parquet", b"PAR1 nonsense PAR1", "no Parquet file"),
        ("a.docx", b"text", "read are .json"),
        ("a.json", b"hello", "no JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataUnusable, match=said) as refused:
        records(tmp_path / name)
    assert name in str(refused.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataUnusable, match="no such file"):
        Source(tmp_path / "none.jsonl")
    with pytest.raises(DataUnusable, match="folder"):
        Source(tmp_path)
