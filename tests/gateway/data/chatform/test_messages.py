"""POST /v1/messages as a chat."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.data.chatform.message import Unreadable
from gateway.data.chatform.messages import asked, streamed, whole

USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "서울"}}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"서울"}'}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_conversation_with_all_its_kinds_of_turns() -> None:
    request = {
        "system": [text("Be brief."), text(" Be kind.")],
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, text("One moment."), USE]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("12 degrees")]}, text("And "), text("tomorrow?"),
            ]},
        ],
    }  # fmt: skip
    assert asked(request)["messages"] == [
        {"role": "system", "content": "Be brief. Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "One moment.", "reasoning_content": "Hm.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "12 degrees"},
        {"role": "user", "content": "And tomorrow?"},
    ]
    assert asked({"system": "S", "messages": []}) == {"messages": [{"role": "system", "content": "S"}]}


def test_what_is_no_text_stays_as_it_came() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    found = asked({"messages": ["odd", {"role": "user", "content": [text("Look"), image, 7]}]})
    assert found["messages"] == ["odd", {"role": "user", "content": [text("Look"), image, 7]}]


def test_tools_and_the_form_of_the_answer_are_kept_as_a_chat_has_them() -> None:
    schema = {"type": "object"}
    found = asked({
        "messages": [],
        "tools": [{"name": "f", "description": "d", "input_schema": schema}, {"type": "web_search_20250305", "name": "w"}, 7],
        "tool_choice": {"type": "tool", "name": "f"}, "output_config": {"format": {"type": "json_schema", "schema": schema}},
    })  # fmt: skip
    assert found["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
        {"type": "web_search_20250305", "name": "w"},
        {},
    ]
    assert found["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert found["response_format"] == {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
    assert asked({"messages": [], "tool_choice": {"type": "any"}})["tool_choice"] == "required"
    assert asked({"messages": [], "tool_choice": {"type": "auto"}})["tool_choice"] == "auto"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"), ("refusal", "content_filter"), ("pause_turn", "pause_turn"), (None, None), (7, None),
    ],
)  # fmt: skip
def test_an_answer_and_why_it_ended(told: Any, reason: str | None) -> None:
    answer = {"type": "message", "role": "assistant", "content": [text("Hi"), text("!")], "stop_reason": told}
    assert whole(answer) == ({"role": "assistant", "content": "Hi!"}, reason)


def test_an_error_is_no_answer() -> None:
    assert whole({"type": "error", "error": {"message": "no"}}) == (None, None)
    assert streamed([{"type": "error", "error": {"message": "no"}}]) == (None, None)


def delta(index: int, kind: str, name: str, words: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: words}}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


STREAM = [
    {"type": "message_start", "message": {"content": []}}, {"type": "ping"},
    begin(0, type="thinking", thinking="", signature=""), delta(0, "thinking_delta", "thinking", "Hm"),
    delta(0, "thinking_delta", "thinking", "."), delta(0, "signature_delta", "signature", "s"), {"type": "content_block_stop", "index": 0},
    begin(1, type="text", text=""), delta(1, "text_delta", "text", "안녕"), delta(1, "text_delta", "text", "하세요"),
    begin(2, type="tool_use", id="toolu_1", name="weather", input={}), delta(2, "input_json_delta", "partial_json", '{"ci'),
    delta(2, "input_json_delta", "partial_json", 'ty":"서울"}'),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}, {"type": "message_stop"},
]  # fmt: skip


def test_a_stream_is_put_together() -> None:
    assert streamed(STREAM) == (
        {"role": "assistant", "content": "안녕하세요", "reasoning_content": "Hm.", "tool_calls": [CALL]}, "tool_calls",
    )  # fmt: skip


def test_of_what_a_server_s_own_tool_was_sent_and_sent_back_only_the_types_are_kept() -> None:
    sent = {"type": "mcp_tool_use", "id": "m", "name": "f", "server_name": "s", "input": {}}
    back = {"type": "mcp_tool_result", "tool_use_id": "m", "content": [text("xyzzy")]}
    parts = [{"type": "text", "text": "So:"}, {"type": "mcp_tool_use"}, {"type": "mcp_tool_result"}, {"type": None}]
    answer = {"type": "message", "content": [text("So:"), sent, back, 7], "stop_reason": "end_turn"}
    assert whole(answer) == ({"role": "assistant", "content": parts}, "stop")
    assert asked({"messages": [{"role": "assistant", "content": [text("So:"), sent, back, 7]}]})["messages"] == [
        {"role": "assistant", "content": parts}
    ]
    said, _ = streamed([STREAM[0], begin(0, **sent), delta(0, "input_json_delta", "partial_json", '{"key": "xyzzy"}')])
    assert said == {"role": "assistant", "content": [{"type": "mcp_tool_use"}]}


def test_one_that_was_cut_has_no_reason() -> None:
    assert streamed(STREAM[:9]) == ({"role": "assistant", "content": "안녕", "reasoning_content": "Hm."}, None)
    assert streamed(STREAM[:1]) == ({"role": "assistant", "content": ""}, None)


def test_a_call_without_arguments_has_an_empty_object() -> None:
    said, _ = streamed([STREAM[0], begin(0, type="tool_use", id="t", name="now", input={})])
    assert said is not None
    assert said["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


@pytest.mark.parametrize("request_body", [{}, {"messages": "hello"}, {"prompt": "x"}])
def test_what_is_no_conversation_is_unreadable(request_body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="has no messages"):
        asked(request_body)


def test_a_piece_without_its_block_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        streamed([STREAM[0], delta(3, "text_delta", "text", "x")])
