"""POST /v1/responses without an engine: what a request means, what is refused, and the order of events."""

from __future__ import annotations

from typing import Any

import openai.types.responses as sdk
import orjson
import pytest
from hypothesis import given, settings

from backends.llamacpp.answer import AnswerFailed
from backends.llamacpp.api import responses
from backends.llamacpp.api.chat import ChatRequest, ChatWire, refused, template_messages, tools_of
from backends.llamacpp.api.fields import RequestError, renaming
from backends.llamacpp.api.params import Defaults
from backends.llamacpp.api.responses_wire import ResponsesWire
from backends.llamacpp.chat import ChatTemplate
from backends.llamacpp.grammar import GrammarError
from backends.llamacpp.message import PLAIN
from backends.llamacpp.sequence import Finish
from tests.backends.llamacpp.api.event_order import check_responses
from tests.backends.llamacpp.api.synthetic import FULL, NUM_CACHED, NUM_PROMPT, Script, fails, scripts, streamed, whole

PLAIN_TEMPLATE = ChatTemplate("{{ messages[0].content }}{{ tools }}")
SWITCHED = ChatTemplate("{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}{{ '</think>' if x }}")
LEVELS = ChatTemplate("{{ reasoning_effort }}</think>")
ALWAYS = ChatTemplate("{{ messages[0].content.split('</think>') }}<think>\n")
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


def chat(template: ChatTemplate = PLAIN_TEMPLATE, **fields: Any) -> ChatRequest:
    return responses.read(orjson.dumps({"input": "hi", **fields}), template)[1]


def take(**fields: Any) -> None:
    """The steps of the server until the prompt is made."""
    asked = chat(**fields)
    with renaming(responses.RENAMES):
        tools_of(asked)


def messages(items: list[Any], **fields: Any) -> list[dict[str, Any]]:
    return template_messages(chat(input=items, **fields).messages)


def call(number: int, name: str = "f") -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": f"c{number}",
        "name": name,
        "arguments": '{"a": 1}',
        "id": f"fc_{number}",
    }


def shown_call(number: int) -> dict[str, Any]:
    return {"type": "function", "id": f"c{number}", "function": {"name": "f", "arguments": {"a": 1}}}


# ---------------------------------------------------------------------- what a request means


def test_a_text_is_a_message_of_the_user() -> None:
    assert template_messages(chat(instructions="Be brief.").messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_what_an_answer_had_is_one_turn_again() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "id": "msg", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "Wait.", "annotations": [], "logprobs": []}]},
        call(1),
        call(2),
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"role": "assistant", "content": "Done."},
        {"role": "assistant", "content": "Really."},
        {"role": "developer", "content": "Now in French."},
    ]  # fmt: skip
    assert messages(items) == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "Wait.", "reasoning_content": "hm", "tool_calls": [shown_call(1), shown_call(2)]},
        {"role": "tool", "content": "two", "tool_call_id": "c2"},
        {"role": "tool", "content": "one", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Done."},
        {"role": "assistant", "content": "Really."},
        {"role": "system", "content": "Now in French."},
    ]  # fmt: skip


def test_turns_that_cannot_be_one_stay_apart() -> None:
    thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]}
    said = {"role": "assistant", "content": "s"}
    output = {"type": "function_call_output", "call_id": "c1", "output": ""}
    found = messages([thought, call(1), output, thought, call(1), said, thought, thought])
    assert [message["role"] for message in found] == ["assistant", "tool", *["assistant"] * 4]
    assert [bool(message.get("tool_calls")) for message in found] == [True, False, True, False, False, False]
    assert [message["content"] for message in found] == ["", "", "", "s", "", ""]
    assert [message.get("reasoning_content") for message in found] == ["t", None, "t", None, "t", "t"]


def test_instructions_are_one_message_with_the_first_of_the_input() -> None:
    items = [
        {"role": "system", "content": "b"},
        {"role": "developer", "content": "c"},
        {"role": "user", "content": "u"},
    ]
    assert messages(items, instructions="a")[0] == {"role": "system", "content": "a\n\nb\n\nc"}


def test_the_rest_of_a_request() -> None:
    schema = {"type": "object"}
    request = chat(
        model="demo", max_output_tokens=9, temperature=0.5, top_p=0.5, top_k=3, min_p=0.1, seed=4, stream=True,
        parallel_tool_calls=False, tools=[TOOL], tool_choice={"type": "function", "name": "f"}, top_logprobs=2,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"], store=True, user="me",
        metadata={"a": "b"}, service_tier="auto", truncation="disabled", background=False, prompt_cache_options={"mode": "x"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "medium"},
    )  # fmt: skip
    assert (request.model, request.max_completion_tokens, request.stream) == ("demo", 9, True)
    assert (request.temperature, request.top_p, request.top_k, request.min_p, request.seed) == (0.5, 0.5, 3, 0.1, 4)
    assert (request.logprobs, request.top_logprobs, request.parallel_tool_calls) == (True, 2, False)
    assert [(tool.name, tool.parameters) for tool in tools_of(request)] == [("f", TOOL["parameters"])]
    assert request.tool_choice.function.name == "f"  # type: ignore[union-attr]
    assert request.response_format is not None
    assert request.response_format.json_schema is not None
    assert request.response_format.json_schema.schema == schema


def test_reasoning_is_switched_where_the_template_has_a_switch() -> None:
    assert chat(SWITCHED, reasoning={"effort": "none"}).chat_template_kwargs == {"enable_thinking": False}
    assert chat(LEVELS, reasoning={"effort": "none"}).reasoning_effort == "none"
    assert chat(LEVELS, reasoning={"effort": "low", "summary": "auto"}).reasoning_effort == "low"
    assert chat(PLAIN_TEMPLATE, reasoning={"effort": "none"}).chat_template_kwargs is None
    assert chat(PLAIN_TEMPLATE, reasoning={"effort": None, "summary": None}).reasoning_effort is None
    with pytest.raises(RequestError, match="always reasons"):
        chat(ALWAYS, reasoning={"effort": "none"})


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "weight": 1}]}, "input[0].weight"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [call(1) | {"arguments": '{"a": '}]}, "input[0].arguments"),
        ({"input": [call(1) | {"arguments": "[]"}]}, "input[0].arguments"),
        ({"input": [call(1), {"type": "function_call_output", "call_id": "c2", "output": "x"}]}, "input[1].call_id"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input[0].encrypted_content"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "x"}}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].function"),
        ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [TOOL | {"parameters": {"type": "array"}}]}, "tools[0].parameters.type"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"stop": ["x"]}, "stop"),
        ({"n": 2}, "n"),
    ],
)
def test_what_cannot_be_done_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        take(**fields)
    assert (caught.value.param, caught.value.status) == (param, 400)
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, GrammarError("no", "a.b"), "text.format.schema.a.b"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}, "tools": [TOOL]}, GrammarError("no", "a.b"),
         "text.format.schema.a.b"),
        ({"text": {"format": {"type": "json_object"}}, "tools": [TOOL]}, GrammarError("no", "f.parameters.a"), "tools.f.parameters.a"),
        ({"tools": [TOOL]}, GrammarError("too big"), "tools"),
    ],
)  # fmt: skip
def test_what_a_grammar_cannot_express_is_named(fields: dict[str, Any], error: GrammarError, param: str) -> None:
    with pytest.raises(RequestError) as caught, renaming(responses.RENAMES):
        raise refused(error, chat(**fields))
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: cannot be followed")


# ---------------------------------------------------------------------- how the answer looks


def wire(script: Script, **fields: Any) -> ResponsesWire:
    request, _ = responses.read(orjson.dumps({"input": "hi", **fields}), PLAIN_TEMPLATE)
    return ResponsesWire("demo", script.token_text, request, Defaults(temperature=0.7))


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "call_id")
    items = [{key: value for key, value in item.items() if key not in names} for item in response["output"]]
    return response | {"output": items, "id": "", "created_at": 0, "completed_at": bool(response["completed_at"])}


@settings(max_examples=150, deadline=None)
@given(scripts())
def test_a_stream_is_well_formed_and_the_same_answer(script: Script) -> None:
    if fails(script, wire(script)):
        try:
            response = check_responses(streamed(script, wire(script)))
        except AnswerFailed:
            assert not script.tokens
        else:
            assert response["status"] == "failed"
            assert response["error"]["message"] == "it broke"
        return
    response = whole(script, wire(script))
    assert without_ids(check_responses(streamed(script, wire(script)))) == without_ids(response)
    message = whole(script, ChatWire("demo", script.token_text))["choices"][0]
    assert response["status"] == ("incomplete" if message["finish_reason"] == "length" else "completed")
    said = [item["content"][0]["text"] for item in response["output"] if item["type"] == "message"]
    thought = [item["content"][0]["text"] for item in response["output"] if item["type"] == "reasoning"]
    called = [(item["name"], item["arguments"]) for item in response["output"] if item["type"] == "function_call"]
    message = message["message"]
    assert "".join(said) == (message["content"] or "")
    assert "".join(thought) == message.get("reasoning_content", "")
    functions = [entry["function"] for entry in message.get("tool_calls", ())]
    assert called == [(function["name"], function["arguments"]) for function in functions]
    assert response["output"], "clients look into the first item"


@settings(max_examples=100, deadline=None)
@given(scripts())
def test_log_probabilities_are_those_of_the_text(script: Script) -> None:
    if script.finish is Finish.ERROR:
        return
    for item in whole(script, wire(script))["output"]:
        if item["type"] == "message":
            part = item["content"][0]
            data = b"".join(bytes(entry["bytes"]) for entry in part["logprobs"]).decode("utf-8", "replace")
            text = part["text"].strip()
            # A token of a tag and half a character is the tag's.
            assert text in data or text[1:] in data
            assert not text or all(entry["bytes"] for entry in part["logprobs"])


def test_tokens_of_thoughts_and_calls_are_not_among_those_of_the_text() -> None:
    tokens = (b"<think>", b"so", b"</think>", b"\n\n", b"It", b" is", b"\n", b"<tool_call>", b'\n{"name": "f",',
              b' "arguments": {}}\n', b"</tool_call>")  # fmt: skip
    script = Script(tokens)
    for response in (whole(script, wire(script)), check_responses(streamed(script, wire(script)))):
        (message,) = [item for item in response["output"] if item["type"] == "message"]
        assert message["content"][0]["text"] == "It is"
        assert [entry["token"] for entry in message["content"][0]["logprobs"]] == ["It", " is"]
    (message,) = whole(Script(tokens, markup=PLAIN), wire(script))["output"]
    assert len(message["content"][0]["logprobs"]) == len(tokens)


def test_every_field_that_the_sdk_knows_is_there() -> None:
    tokens = (b"<think>", b"so", b"</think>", b"Hm", b'<tool_call>\n{"name": "f", "arguments": {"a": ', b"12")
    script = Script(tokens, Finish.LENGTH, FULL)
    fields: dict[str, Any] = {
        "instructions": "Be brief.", "tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}, "user": "me",
        "metadata": {"a": "b"}, "text": {"format": {"type": "json_object"}}, "store": True, "max_output_tokens": 6,
    }  # fmt: skip
    body = whole(script, wire(script, **fields))
    response = sdk.Response.model_validate(body, strict=True)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert [item.status for item in response.output] == ["completed", "completed", "incomplete"]  # type: ignore[union-attr]
    assert response.output[2].arguments == '{"a": 12'  # type: ignore[union-attr]
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (body["store"], response.instructions, response.metadata) == (False, "Be brief.", {"a": "b"})
    assert (response.temperature, response.top_p, response.user) == (0.7, 1.0, "me")
    assert response.usage is not None
    assert response.usage.model_dump(exclude_none=True) == {
        "input_tokens": NUM_PROMPT,
        "input_tokens_details": {"cached_tokens": NUM_CACHED, "cache_write_tokens": 0},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": response.usage.output_tokens_details.reasoning_tokens},
        "total_tokens": NUM_PROMPT + 6,
    }
    known = set(sdk.Response.model_fields) | {"store"}
    assert set(body) <= known
