"""POST /v1/responses as a chat."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.data.chatform.message import Unreadable
from gateway.data.chatform.responses import asked, streamed, whole

CALLED = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "서울"}'}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "서울"}'}}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}


def message(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": words}], **more}


def test_a_conversation_with_all_its_kinds_of_items() -> None:
    request = {
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]},
            THOUGHT, message("One moment."), CALLED,
            {"type": "function_call_output", "call_id": "call_1", "output": "12 degrees"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "And tomorrow?"},
        ],
    }  # fmt: skip
    assert asked(request)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "One moment.", "reasoning_content": "Hm.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "And tomorrow?"},
    ]
    assert asked({"input": "Hello"}) == {"messages": [{"role": "user", "content": "Hello"}]}


def test_what_is_no_text_stays_as_it_came() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    search = {"type": "web_search_call", "id": "ws_1"}
    said = {"role": "user", "content": [{"type": "input_text", "text": "Look"}, image]}
    found = asked({"input": [said, search, "odd"]})
    assert found["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]}, search, {"role": None, "content": "odd"},
    ]  # fmt: skip


def test_tools_and_the_form_of_the_answer_are_kept_as_a_chat_has_them() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "name": "n", "schema": schema}
    found = asked({
        "input": "x", "tools": [{"type": "function", "name": "f", "parameters": schema}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "f"}, "text": {"format": form},
    })  # fmt: skip
    assert found["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": schema}}, {"type": "web_search"},
    ]  # fmt: skip
    assert found["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert found["response_format"] == {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert asked({"input": "x", "tool_choice": "required"})["tool_choice"] == "required"
    assert asked({"input": "x", "text": {"format": {"type": "json_object"}}})["response_format"] == {
        "type": "json_object"
    }
    assert "response_format" not in asked({"input": "x", "text": {"format": {"type": "text"}}})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, None),
        ({"status": "failed"}, None),
        ({}, None),
    ],
)
def test_an_answer_and_why_it_ended(more: dict[str, Any], reason: str | None) -> None:
    output = [{"type": "web_search_call"}, message("Hi"), message("!")]
    assert whole({"object": "response", "output": output, **more}) == ({"role": "assistant", "content": "Hi!"}, reason)


def test_calls_and_thoughts_of_an_answer() -> None:
    found = whole({"status": "completed", "output": [THOUGHT, CALLED]})
    assert found == (
        {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [CALL]}, "tool_calls",
    )  # fmt: skip
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "content": None}
    assert whole({"status": "completed", "output": [summary]})[0] == {
        "role": "assistant", "content": "", "reasoning_content": "Hm.",
    }  # fmt: skip


def test_an_error_is_no_answer() -> None:
    assert whole({"error": {"message": "no"}}) == (None, None)
    assert streamed([{"type": "error", "message": "no"}, {"error": {"message": "no"}}]) == (None, None)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


STREAM = [
    event("created", response={"status": "in_progress", "output": []}),
    event("output_item.added", output_index=0, item={"type": "reasoning", "summary": [], "content": None}),
    event("reasoning_text.delta", output_index=0, content_index=0, delta="Hm"),
    event("reasoning_text.delta", output_index=0, content_index=0, delta="."),
    event("output_item.done", output_index=0, item=THOUGHT),
    event("output_item.added", output_index=1, item={"type": "message", "role": "assistant", "content": []}),
    event("content_part.added", output_index=1, content_index=0, part={"type": "output_text", "text": ""}),
    event("output_text.delta", output_index=1, content_index=0, delta="One "),
    event("output_text.delta", output_index=1, content_index=0, delta="moment."),
    event("output_text.done", output_index=1, content_index=0, text="One moment."),
    event("output_item.added", output_index=2, item={**CALLED, "arguments": ""}),
    event("function_call_arguments.delta", output_index=2, delta='{"city": '),
    event("function_call_arguments.delta", output_index=2, delta='"서울"}'),
]
SAID = {"role": "assistant", "content": "One moment.", "reasoning_content": "Hm.", "tool_calls": [CALL]}


def test_a_stream_is_put_together() -> None:
    whole_one = {"status": "completed", "output": [THOUGHT, message("One moment."), CALLED]}
    assert streamed([*STREAM, event("completed", response=whole_one)]) == (SAID, "tool_calls")
    assert streamed([*STREAM, event("completed", response={"status": "completed", "output": []})]) == (
        SAID,
        "tool_calls",
    )


def test_one_that_was_cut_has_no_reason() -> None:
    assert streamed(STREAM) == (SAID, None)
    assert streamed(STREAM[:8]) == ({"role": "assistant", "content": "One ", "reasoning_content": "Hm."}, None)
    assert streamed(STREAM[:1]) == ({"role": "assistant", "content": ""}, None)
    assert streamed(STREAM[7:9]) == ({"role": "assistant", "content": "One moment."}, None)


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"input": 7},
        {"input": "And now?", "previous_response_id": "resp_1"},
        {"input": "x", "conversation": {"id": "c"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_what_is_not_all_here_is_unreadable(request_body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        asked(request_body)


def test_a_piece_of_no_item_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        streamed([event("output_text.delta", output_index="first", delta="x")])
