"""POST /v1/responses as a chat."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.data.chatform.message import Unreadable
from gateway.data.chatform.responses import asked, streamed, whole

CALLED = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "서울"}'}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "서울"}'}}
CUSTOM = {"type": "custom_tool_call", "call_id": "call_2", "name": "python", "input": "1 + 2"}
CUSTOM_CALL = {"id": "call_2", "type": "custom", "custom": {"name": "python", "input": "1 + 2"}}
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
            CUSTOM, {"type": "custom_tool_call_output", "call_id": "call_2", "output": "3"},
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
        {"role": "assistant", "content": "", "tool_calls": [CUSTOM_CALL]},
        {"role": "tool", "tool_call_id": "call_2", "content": "3"},
    ]
    assert asked({"input": "Hello"}) == {"messages": [{"role": "user", "content": "Hello"}]}


def test_a_user_s_parts_that_are_no_text_stay_as_they_came() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    said = {"role": "user", "content": [{"type": "input_text", "text": "Look"}, image]}
    assert asked({"input": [said, "odd"]})["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]}, {"role": None, "content": "odd"},
    ]  # fmt: skip


UNKNOWN: list[dict[str, Any]] = [
    {"type": "web_search_call", "id": "ws_1", "action": {"query": "xyzzy"}},
    {
        "type": "mcp_call",
        "id": "mcp_1",
        "name": "f",
        "server_label": "s",
        "arguments": '{"key": "xyzzy"}',
        "output": "xyzzy",
    },
    {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "server_label": "s", "arguments": '{"key": "xyzzy"}'},
    {"type": "computer_call", "call_id": "c", "action": {"type": "type", "text": "xyzzy"}},
    {"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "xyzzy"}]},
    {"type": "reasoning", "content": [{"type": "picture", "data": "xyzzy"}]},
]


@pytest.mark.parametrize("item", UNKNOWN[:-1], ids=lambda item: item["type"])
def test_of_an_item_that_is_not_understood_only_the_type_is_kept(item: dict[str, Any]) -> None:
    assert asked({"input": [item]})["messages"] == [{"type": item["type"]}]


@pytest.mark.parametrize("item", UNKNOWN, ids=lambda item: item["type"])
def test_an_answer_tells_of_it_and_is_not_said_to_have_just_stopped(item: dict[str, Any]) -> None:
    kind = {"type": item["type"]}
    assert whole({"status": "completed", "output": [item]}) == ({"role": "assistant", "content": [kind]}, None)
    text = {"type": "text", "text": "Hi"}
    found = whole({"status": "completed", "output": [item, message("Hi")]})
    assert found == ({"role": "assistant", "content": [kind, text]}, None)
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert whole({**cut, "output": [message("Hi"), item]}) == (
        {"role": "assistant", "content": [text, kind]}, "length",
    )  # fmt: skip
    assert whole({"status": "completed", "output": [item, CALLED]}) == (
        {"role": "assistant", "content": [kind], "tool_calls": [CALL]}, "tool_calls",
    )  # fmt: skip


@pytest.mark.parametrize("item", UNKNOWN, ids=lambda item: item["type"])
def test_a_stream_tells_of_it_too(item: dict[str, Any]) -> None:
    done = event("output_item.done", output_index=0, item=item)
    end = event("completed", response={"status": "completed", "output": []})
    said = {"role": "assistant", "content": [{"type": item["type"]}]}
    assert streamed([STREAM[0], done]) == (said, None)
    assert streamed([STREAM[0], done, end]) == (said, None)


def test_nonsense_among_the_items_of_an_answer_is_not_understood_either() -> None:
    image = {"type": "output_image", "data": "xyzzy"}
    output = [
        "xyzzy",
        {"type": {"xyzzy": 1}},
        {"role": "user", "content": "xyzzy"},
        {"role": "assistant", "content": [image]},
    ]
    none = {"type": None}
    assert whole({"status": "completed", "output": output}) == (
        {"role": "assistant", "content": [none, none, none, {"type": "output_image"}]}, None,
    )  # fmt: skip


def test_a_call_with_any_text_is_a_call() -> None:
    said = {"role": "assistant", "content": "", "tool_calls": [CUSTOM_CALL]}
    assert whole({"status": "completed", "output": [CUSTOM]}) == (said, "tool_calls")
    events = [
        STREAM[0], event("output_item.added", output_index=0, item={**CUSTOM, "input": ""}),
        event("custom_tool_call_input.delta", output_index=0, delta="1 +"),
        event("custom_tool_call_input.delta", output_index=0, delta=" 2"),
    ]  # fmt: skip
    assert streamed(events) == (said, None)
    assert streamed([*events, event("completed", response={"status": "completed", "output": []})]) == (
        said, "tool_calls",
    )  # fmt: skip


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
    output = [message("Hi"), message("!")]
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
