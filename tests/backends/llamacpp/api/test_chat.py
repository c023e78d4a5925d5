"""Chat requests as they are read: what is taken, and what is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.llamacpp.api import blocks, chat, items
from backends.llamacpp.api.fields import RequestError
from backends.llamacpp.chat import ChatTemplate
from backends.llamacpp.nesting import MAX_DEPTH

ASKED = {"role": "user", "content": "x"}
TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}{{ flag }}")


def read(**fields: Any) -> chat.ChatRequest:
    return chat.read(json.dumps({"messages": [ASKED]} | fields).encode())


def said(**fields: Any) -> dict[str, Any]:
    return chat.template_messages(read(messages=[{"role": "assistant", "content": "y"} | fields]).messages)[0]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def calling(arguments: Any, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}} | fields]


def test_calls_are_nested_as_deep_as_they_may() -> None:
    assert said(tool_calls=calling(nested(MAX_DEPTH)))["tool_calls"][0]["function"]["arguments"] == nested(MAX_DEPTH)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 600])
def test_what_is_nested_too_deep_is_refused_by_its_place(depth: int) -> None:
    deep = nested(depth)
    text = '{"a":' * depth + "1" + "}" * depth
    at = "messages[0].tool_calls[0].function.arguments"
    for arguments in (deep, text):
        with pytest.raises(RequestError, match="nested deeper") as caught:
            said(tool_calls=calling(arguments))
        assert caught.value.param == at
    with pytest.raises(RequestError, match="nested deeper") as caught:
        chat.tools_of(read(tools=[{"type": "function", "function": {"name": "f", "parameters": {"properties": deep}}}]))
    assert caught.value.param == "tools[0].function.parameters"
    with pytest.raises(RequestError, match="nested deeper") as caught:
        chat.template_context(read(chat_template_kwargs={"flag": deep}), TEMPLATE)
    assert caught.value.param == "chat_template_kwargs"
    with pytest.raises(RequestError, match="nested deeper") as caught:
        blocks.messages_of(None, [("assistant", [{"type": "tool_use", "id": "1", "name": "f", "input": deep}])])
    assert caught.value.param == "messages[0].content[0].input"
    with pytest.raises(RequestError, match="nested deeper") as caught:
        items.messages_of(None, [{"type": "function_call", "call_id": "1", "name": "f", "arguments": text}])
    assert caught.value.param == "input[0].arguments"


def test_what_says_nothing_is_no_field() -> None:
    calls = calling('{"a": null}', extra=None)
    assert said(thoughts=None, tool_calls=calls)["tool_calls"][0]["function"]["arguments"] == {"a": None}
    assert "reasoning_content" not in said(reasoning=None, reasoning_content=None)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_two_names(name: str) -> None:
    assert said(**{name: "hm"})["reasoning_content"] == "hm"
    assert said(reasoning="hm", reasoning_content="hm")["reasoning_content"] == "hm"


def test_two_reasonings_are_refused() -> None:
    with pytest.raises(RequestError) as caught:
        said(reasoning="hm", reasoning_content="well")
    assert caught.value.param == "messages[0].reasoning"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [ASKED | {"thoughts": "x"}]}, "messages[0].thoughts"),
        (
            {"messages": [{"role": "assistant", "tool_calls": calling("{}", extra=1)}]},
            "messages[0].tool_calls[0].extra",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "args": "{}"}}]}]},
            "messages[0].tool_calls[0].function.args",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "input_schema": {}}}]},
            "tools[0].function.input_schema",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}, "defer": True}]}, "tools[0].defer"),
    ],
)
def test_unknown_fields_are_refused_wherever_they_are(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match="unsupported field") as caught:
        read(**fields)
    assert caught.value.param == param
