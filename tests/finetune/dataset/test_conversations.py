"""Which records of the gateway's log are rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.protocol import sse
from finetune.dataset.conversations import (
    CUT,
    FAILED,
    FILTERED,
    FORMAT,
    NO_TEXT,
    REASONS,
    TOOLS,
    UNREADABLE,
    VERSION,
    Conversation,
    read_line,
)
from gateway.accesslog import AccessLine
from gateway.data import transcript as transcripts
from gateway.data.transcript import transcript

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " 안녕하세요 "}]


def line(**changes: Any) -> bytes:
    record = {
        "format": "forgegate-conversation", "format_version": 1, "model": "support", "resolved": "support@0123456789ab", "status": 200,
        "error": "", "finish_reason": "stop", "messages": HELLO, "answer": {"role": "assistant", "content": "네, 안녕하세요."},
    }  # fmt: skip
    return json.dumps(record | changes).encode()


def test_a_conversation_is_a_row() -> None:
    found = read_line(line())
    assert isinstance(found, Conversation)
    assert found.record() == {
        "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "안녕하세요"},
            {"role": "assistant", "content": "네, 안녕하세요."},
        ]
    }  # fmt: skip
    assert (found.model, found.resolved) == ("support", "support@0123456789ab")


def test_parts_of_text_are_joined_and_roles_are_those_of_chatml() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    found = read_line(line(messages=[{"role": "developer", "content": "S"}, {"role": "user", "content": parts}]))
    assert isinstance(found, Conversation)
    assert found.messages[:2] == (("system", "S"), ("user", "one\ntwo"))


def booked(path: str) -> AccessLine:
    return AccessLine(
        time=1.0, request_id="r", client="", method="POST", path=path, model="m", resolved="m@0", status=200, duration_ms=1.0,
    )  # fmt: skip


def test_what_the_gateway_writes_is_read() -> None:
    events = [{"delta": {"content": "네, "}}, {"delta": {"content": "안녕하세요."}, "finish_reason": "stop"}]
    answer = b"".join(sse({"choices": [{"index": 0, **event}]}) for event in events)
    written = transcript(json.dumps({"messages": HELLO}).encode(), answer, booked("/v1/chat/completions"), None)
    found = read_line(json.dumps(written).encode())
    assert isinstance(found, Conversation)
    assert found.messages == (("system", "Be brief."), ("user", "안녕하세요"), ("assistant", "네, 안녕하세요."))
    assert (FORMAT, VERSION) == (transcripts.FORMAT, transcripts.VERSION)


RESPONSE = {
    "status": "completed",
    "output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "네, 안녕하세요."}]},
    ],
}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "네, 안녕하세요."}], "stop_reason": "end_turn"}


@pytest.mark.parametrize(
    ("path", "request_body", "answer"),
    [
        ("/v1/responses", {"instructions": "Be brief.", "input": HELLO[1:]}, RESPONSE),
        ("/v1/messages", {"system": "Be brief.", "messages": HELLO[1:]}, MESSAGE),
    ],
)
def test_what_the_gateway_writes_of_other_apis_is_read_alike(
    path: str, request_body: dict[str, Any], answer: dict[str, Any]
) -> None:
    written = transcript(json.dumps(request_body).encode(), json.dumps(answer).encode(), booked(path), None)
    found = read_line(json.dumps(written).encode())
    assert isinstance(found, Conversation)
    assert found.messages == (("system", "Be brief."), ("user", "안녕하세요"), ("assistant", "네, 안녕하세요."))


CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": 502}, FAILED),
        ({"error": "client_disconnected"}, FAILED),
        ({"finish_reason": "length"}, CUT),
        ({"finish_reason": None}, CUT),
        ({"finish_reason": "content_filter"}, FILTERED),
        ({"finish_reason": "tool_calls"}, TOOLS),
        ({"tools": [{"type": "function"}]}, TOOLS),
        ({"messages": [*HELLO, CALL, {"role": "tool", "content": "12"}]}, TOOLS),
        ({"answer": None}, NO_TEXT),
        ({"answer": {"role": "assistant", "content": " "}}, NO_TEXT),
        ({"messages": []}, NO_TEXT),
        ({"messages": HELLO[:1]}, NO_TEXT),
        ({"messages": ["hello"]}, NO_TEXT),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, NO_TEXT),
        ({"messages": [{"role": "wizard", "content": "x"}]}, NO_TEXT),
        ({"format": "other"}, UNREADABLE),
        ({"format_version": 2}, UNREADABLE),
        ({"messages": None}, UNREADABLE),
    ],
)  # fmt: skip
def test_others_are_left_out_for_a_reason(changes: dict[str, Any], reason: str) -> None:
    assert read_line(line(**changes)) == reason
    assert reason in REASONS


@pytest.mark.parametrize("text", [b"{]", b"[1]", b"12", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_record_is_said(text: bytes) -> None:
    assert read_line(text) == UNREADABLE


def test_a_longer_conversation_begins_with_the_shorter_one() -> None:
    first = read_line(line())
    later = [*HELLO, {"role": "assistant", "content": "네, 안녕하세요."}, {"role": "user", "content": "더요"}]
    second = read_line(line(messages=later))
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert [*second.beginnings()] == [first.digest()]
    assert [*first.beginnings()] == []
