"""Review of rows without a browser: what is shown, what an edit must be, what is written, what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from finetune.dataset.progress import Unwatched
from finetune.dataset.spool import Spool
from finetune.pages.journal import Journal
from finetune.pages.review import FORMAT, Review
from finetune.pages.rows import Rows
from finetune.pages.server import Refused

QUESTION, ANSWER = "배송은 언제 시작되나요? 사흘이 지났습니다.", "오늘 오후에 출고되어 내일 오전에 도착할 예정입니다."
GOOD = {"instruction": QUESTION, "output": ANSWER, "id": 7}
CHAT = {
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!\r\nline"}],
    "lang": "en",
}
PARTS = {"messages": [
    {"role": "user", "content": [{"type": "text", "text": "sum"}]},
    {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}]},
]}  # fmt: skip
TEXT = {"text": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello there<|im_end|>\n"}
EMPTY = {"instruction": "무엇인가요?", "output": ""}
STRANGE = {"nothing": "known"}
ROWS = [GOOD, CHAT, PARTS, TEXT, EMPTY, STRANGE]


def written(rows: list[Any], path: Path, tail: str = "") -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) + tail, encoding="utf-8")
    return path


@contextmanager
def reviewing(path: Path, out: Path, is_flagged_only: bool = False) -> Iterator[Review]:
    with Spool() as spool, Journal(out.with_name("journal"), {"format": FORMAT}, ()) as journal:
        yield Review(Rows(path, {}, spool, Unwatched()), journal, out, is_flagged_only)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_kept_edited_and_dropped_rows(tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    with reviewing(written(ROWS, tmp_path / "a.jsonl"), out) as review:
        shown = review.view({})
        assert (shown["row"], shown["form"], shown["decision"]) == (1, "Alpaca", "open")
        assert [one["name"] for one in shown["fields"]] == ["instruction", "output"]
        assert review.act("decide", {"row": 1, "do": "keep"})["row"] == 2
        chat = review.act("edit", {"row": 2, "texts": ["hi", "Good day!"]})
        assert (chat["row"], [one["name"] for one in chat["fields"]]) == (3, ["user"])
        assert review.act("decide", {"row": 3, "do": "drop"})["row"] == 4
        review.act("edit", {"row": 4, "texts": [TEXT["text"].replace("there", "you")]})
        review.act("edit", {"row": 5, "texts": ["무엇인가요?", "답입니다."]})
        done = review.act("edit", {"row": 6, "json": json.dumps({"prompt": "q", "completion": "an answer"})})
        assert (done["state"], done["kept"], done["edited"], done["dropped"], done["open"]) == ("done", 1, 4, 1, 0)
        assert not out.exists()
        assert review.act("finish", {})["written"] == 5
        assert review.is_finished
    assert lines(out) == [
        GOOD,
        {**CHAT, "messages": [CHAT["messages"][0], {"role": "assistant", "content": "Good day!"}]},
        {"text": TEXT["text"].replace("there", "you")},
        {"instruction": "무엇인가요?", "output": "답입니다."},
        {"prompt": "q", "completion": "an answer"},
    ]


@pytest.mark.parametrize(
    ("row", "edit", "said"),
    [
        (1, {"texts": [QUESTION, "  "]}, "output is empty"),
        (1, {"texts": [QUESTION]}, "it has 2 texts, and 1 came"),
        (1, {"texts": "x"}, "no text to save"),
        (1, {}, "no text to save"),
        (2, {"json": "{"}, "it is no JSON"),
        (2, {"json": "[1]"}, "it is no object but list"),
        (2, {"json": '{"other": 1}'}, "none of its fields is known: other"),
        (2, {"json": '{"messages": [{"role": "robot", "content": "x"}]}'}, "has the role 'robot'"),
        (2, {"json": '{"messages": [{"role": "user", "content": "x"}]}'}, "it ends with user"),
        (2, {"json": "[" * 100_000}, "nested too deeply|no JSON"),
        (4, {"texts": ["plain words"]}, "without the marks of a template"),
        (6, {"texts": []}, "none of its fields is known"),
    ],
)
def test_an_edit_is_read_as_the_doctor_reads_rows(tmp_path: Path, row: int, edit: dict[str, Any], said: str) -> None:
    with reviewing(written(ROWS, tmp_path / "a.jsonl"), tmp_path / "out") as review:
        before = (tmp_path / "journal").read_bytes()
        with pytest.raises(Refused, match=said):
            review.act("edit", {"row": row, **edit})
        assert review.view({"row": str(row)})["decision"] == "open"
        assert (tmp_path / "journal").read_bytes() == before


def test_what_the_doctor_says_is_shown_and_follows_an_edit(tmp_path: Path) -> None:
    with reviewing(written([*ROWS, GOOD], tmp_path / "a.jsonl", '{"broken": \n'), tmp_path / "out") as review:
        names = {n: [note["name"] for note in review.view({"row": str(n)})["notes"]] for n in (1, 5, 6, 7, 8)}
        assert names == {1: [], 5: ["empty", "empty_mask"], 6: ["schema"], 7: ["duplicate"], 8: ["unreadable"]}
        assert review.view({"row": "7"})["notes"][0]["why"].endswith("(row 1)")
        assert review.view({"row": "8"})["json"] == '{"broken":'
        review.act("edit", {"row": 5, "texts": ["무엇인가요?", "메일은 kim@naver.com 입니다, 확인해 주세요."]})
        shown = review.view({"row": "5"})
        assert ([note["name"] for note in shown["notes"]], shown["decision"]) == (["personal_data"], "edit")


def test_what_is_no_row_cannot_be_kept(tmp_path: Path) -> None:
    with reviewing(written(ROWS, tmp_path / "a.jsonl"), tmp_path / "out") as review:
        with pytest.raises(Refused, match="edit it, or drop it"):
            review.act("decide", {"row": 6, "do": "keep"})
        for body in (
            {"row": 99, "do": "keep"},
            {"row": "1", "do": "keep"},
            {"row": True, "do": "keep"},
            {"do": "keep"},
        ):
            with pytest.raises(Refused, match="there is no row"):
                review.act("decide", body)
        with pytest.raises(Refused, match="keep, drop or open"):
            review.act("decide", {"row": 1, "do": "burn"})
        for query in ("0", "99", "x", "-1"):
            with pytest.raises(Refused, match="there is no row"):
                review.view({"row": query})
        with pytest.raises(Refused, match="no such action"):
            review.act("reveal", {})


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path, out = written(ROWS, tmp_path / "a.jsonl"), tmp_path / "out.jsonl"
    with reviewing(path, out) as review:
        review.act("decide", {"row": 1, "do": "drop"})
        review.act("edit", {"row": 2, "texts": ["hi", "edited"]})
        review.act("decide", {"row": 2, "do": "drop"})
        review.act("decide", {"row": 4, "do": "keep"})
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'{"row": 3, "do"')  # the machine stopped here
    with reviewing(path, out) as review:
        assert review.view({})["row"] == 3
        assert review.view({"row": "2"})["decision"] == "drop"
        review.act("decide", {"row": 2, "do": "keep"})
        assert review.view({"row": "2"})["decision"] == "edit", "it is kept as it was edited"
        review.act("decide", {"row": 1, "do": "open"})
        assert review.view({})["row"] == 1
        with pytest.raises(Refused, match="rows are undecided"):
            review.act("finish", {})
        assert not out.exists()
        review.act("finish", {"rest": "drop"})
    assert lines(out) == [{**CHAT, "messages": [CHAT["messages"][0], {"role": "assistant", "content": "edited"}]}, TEXT]


def test_undecided_rows_can_be_kept_all(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with reviewing(written(ROWS, tmp_path / "a.jsonl"), out) as review:
        review.act("decide", {"row": 5, "do": "drop"})
        assert review.act("finish", {"rest": "keep"})["written"] == 4
    assert lines(out) == [GOOD, CHAT, PARTS, TEXT], "what is no row is left out"


def test_only_what_the_doctor_flags(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with reviewing(written(ROWS, tmp_path / "a.jsonl"), out, is_flagged_only=True) as review:
        shown = review.view({})
        numbers = [shown["row"]]
        while shown["state"] == "row":
            shown = review.act("decide", {"row": shown["row"], "do": "drop"})
            numbers.append(shown.get("row"))
        assert {5, 6} <= set(numbers)
        assert 1 not in numbers
        with pytest.raises(Refused, match="there is no row 1 to review"):
            review.view({"row": "1"})
        review.act("finish", {})
    assert GOOD in lines(out)
    assert EMPTY not in lines(out)


def test_columns_are_named_as_for_the_doctor(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"q,a\n{QUESTION},{ANSWER}\n".encode("cp949"))
    with Spool() as spool, Journal(tmp_path / "j", {"format": FORMAT}, ()) as journal:
        rows = Rows(path, {"instruction": "q", "output": "a"}, spool, Unwatched())
        review = Review(rows, journal, tmp_path / "out")
        review.act("decide", {"row": 1, "do": "keep"})
        review.act("finish", {})
    assert lines(tmp_path / "out") == [{"instruction": QUESTION, "output": ANSWER}]
