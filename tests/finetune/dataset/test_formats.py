"""Every form becomes turns; what was recognised is said with its evidence."""

from __future__ import annotations

import json

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.dataset.formats import Columns, NoForm, choose_columns, describe, to_row
from finetune.dataset.row import messages, rewritten

ARTICLE_ALPACA = {
    "instruction": "다음 코드의 보안 취약점을 분석해주세요.",
    "input": "def login(user, pw):\n    query = f\"SELECT * FROM users WHERE name='{user}' AND pass='{pw}'\"\n"
    "    return db.execute(query)",
    "output": "SQL Injection 취약점이 있습니다.\n\n1. **문제점**: f-string으로 "
    "직접 쿼리를 조합하고 있어 악의적 입력이 그대로 SQL에 삽입됩니다.",
}
ARTICLE_CHATML = {
    "conversations": [
        {"role": "system", "content": "당신은 보안 전문가입니다. 코드의 취약점을 분석합니다."},
        {"role": "user", "content": "이 코드 봐주세요:\ndef login(user, pw):..."},
        {"role": "assistant", "content": "SQL Injection 취약점이 발견되었습니다..."},
    ]
}


def turns(record: object) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in to_row(record, 1).turns]


def test_the_articles_alpaca_sample() -> None:
    row = to_row(ARTICLE_ALPACA, 1)
    assert row.form == "Alpaca"
    assert [message["role"] for message in messages(row)] == ["user", "assistant"]
    assert messages(row)[0]["content"] == f"{ARTICLE_ALPACA['instruction']}\n\n{ARTICLE_ALPACA['input']}"
    assert row.answer == ARTICLE_ALPACA["output"]


def test_the_articles_chatml_sample() -> None:
    row = to_row(ARTICLE_CHATML, 1)
    assert row.form == "ChatML"
    assert messages(row) == ARTICLE_CHATML["conversations"]
    assert (row.system, row.answer) == (
        ARTICLE_CHATML["conversations"][0]["content"],
        "SQL Injection 취약점이 발견되었습니다...",
    )


@pytest.mark.parametrize(
    ("record", "form", "expected"),
    [
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "ShareGPT",
            [("user", "q"), ("assistant", "a")],
        ),
        ({"messages": json.dumps([{"role": "user", "content": "q"}])}, "ChatML", [("user", "q")]),
        ({"prompt": "q", "completion": "a"}, "prompt/completion", [("user", "q"), ("assistant", "a")]),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            "ChatML",
            [("user", "q"), ("assistant", "a")],
        ),
        (
            {"instruction": "q2", "output": "a2", "history": [["q1", "a1"]], "system": "s"},
            "Alpaca",
            [("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")],
        ),
        (
            {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
            "ready-made text",
            [("user", "q<|im_end|>"), ("assistant", "a<|im_end|>")],
        ),
        ({"text": "### Instruction:\nq\n\n### Response:\na"}, "ready-made text", [("user", "q"), ("assistant", "a")]),
        ({"instruction": "q", "output": None}, "Alpaca", [("user", "q"), ("assistant", "")]),
        (
            {"instruction": "q", "output": {"label": "배송"}},
            "Alpaca",
            [("user", "q"), ("assistant", '{"label": "배송"}')],
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}]},
                    {"role": "model", "content": "a"},
                ]
            },
            "ChatML",
            [("user", "q"), ("assistant", "a")],
        ),
    ],
)
def test_forms(record: object, form: str, expected: list[tuple[str, str]]) -> None:
    assert to_row(record, 1).form == form
    assert turns(record) == expected


@pytest.mark.parametrize(
    "record", [["a"], "text", {"title": "a"}, {"messages": 3}, {"messages": "no json"}, {"text": "just words"}, {}]
)
def test_what_has_no_form(record: object) -> None:
    with pytest.raises(NoForm):
        to_row(record, 1)


def test_columns_with_korean_headers() -> None:
    sample = [{"번호": 1, "문의 내용": "환불?", "답변": "네"}]
    columns = choose_columns(sample, {}, "a.csv")
    assert columns.apply(sample[0]) == {"번호": 1, "instruction": "환불?", "output": "네"}
    assert "column '문의 내용' is taken as instruction" in describe({"Alpaca": 1}, sample, columns)


def test_columns_that_the_user_names() -> None:
    sample = [{"q": "환불?", "reply": "네"}]
    assert choose_columns(sample, {"instruction": "q", "output": "reply"}, "a").apply(sample[0]) == {
        "instruction": "환불?",
        "output": "네",
    }
    with pytest.raises(DataUnusable, match="no field 'repl' \\(did you mean 'reply'\\?\\)"):
        choose_columns(sample, {"instruction": "q", "output": "repl"}, "a")
    with pytest.raises(DataUnusable, match="--columns instruction=FIELD"):
        choose_columns([{"x": 1, "y": 2}], {}, "a")


def test_evidence_counts_every_form() -> None:
    lines = describe({"Alpaca": 98, "ChatML": 2}, [ARTICLE_ALPACA, ARTICLE_CHATML], Columns({}))
    assert lines == [
        "Alpaca: 98 of 100 rows have instruction, input, output",
        "ChatML: 2 of 100 rows have conversations with role, content",
    ]


def test_a_text_is_rewritten_where_it_stands_and_the_rest_is_kept() -> None:
    record = {"conversations": [{"from": "human", "value": "q", "id": 1}, {"from": "gpt", "value": "a"}], "source": "x"}
    row = to_row(record, 1)
    changed = rewritten(row, {row.turns[0].place: "Q"})
    assert changed == {
        "conversations": [{"from": "human", "value": "Q", "id": 1}, {"from": "gpt", "value": "a"}],
        "source": "x",
    }
    assert record["conversations"][0]["value"] == "q"
