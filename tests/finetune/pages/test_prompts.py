"""Prompts of a file: whichever form it has, without the answers that it gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.pages.prompts import read_prompts


def test_lines_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\ufeff첫 질문\n\n  second \nsecond\n", encoding="utf-8")
    found = read_prompts(tmp_path / "p.txt")
    assert [one.messages[0]["content"] for one in found] == ["첫 질문", "second"]
    assert all(one.cluster == one.digest for one in found)


def test_rows_in_their_forms_stop_where_the_assistant_is_to_speak(tmp_path: Path) -> None:
    rows = [
        {"prompt": "alone"},
        {"instruction": "sum", "input": "1 + 1", "output": "2", "cluster": "sums"},
        {"messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"},
        ]},
        {"messages": [{"role": "user", "content": "no answer yet"}]},
        {"messages": [{"role": "assistant", "content": "nobody asked"}]},
    ]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_prompts(tmp_path / "p.jsonl")
    assert [[(one["role"], one["content"]) for one in prompt.messages] for prompt in found] == [
        [("user", "alone")],
        [("user", "sum\n\n1 + 1")],
        [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "no answer yet")],
    ]
    assert found[1].cluster == "sums"
    assert found[0].digest == read_prompts(tmp_path / "p.jsonl")[0].digest
    assert len({one.digest for one in found}) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.txt", b"\n \n", "has no prompt"),
        ("p.txt", b"\xff\xfe\xff", "no UTF-8"),
        ("p.jsonl", b'{"messages": [{"role": "assistant", "content": "x"}]}\n', "has no prompt"),
        ("p.jsonl", b'{"a": 1}\n', "no known form"),
        ("absent.txt", None, "there is no such file"),
        ("absent.jsonl", None, "there is no such file"),
    ],
)
def test_what_has_no_prompt_is_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataUnusable, match=said):
        read_prompts(tmp_path / name)
