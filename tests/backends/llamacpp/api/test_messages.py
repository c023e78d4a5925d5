"""POST /v1/messages without an engine: what a request means, what is refused, and the order of events."""

from __future__ import annotations

from typing import Any

import anthropic.types as sdk
import orjson
import pytest
from hypothesis import given, settings

from backends.llamacpp.answer import AnswerFailed
from backends.llamacpp.api import messages as api
from backends.llamacpp.api.chat import (
    ChatRequest,
    ChatWire,
    callable_tools,
    check,
    refused,
    template_messages,
    tools_of,
)
from backends.llamacpp.api.fields import RequestError, renaming
from backends.llamacpp.api.messages_wire import MessagesWire
from backends.llamacpp.api.params import answer_budget, stops
from backends.llamacpp.api.partial import partial_object
from backends.llamacpp.chat import ChatTemplate
from backends.llamacpp.grammar import GrammarError
from backends.llamacpp.sequence import Finish
from tests.backends.llamacpp.api.event_order import check_messages
from tests.backends.llamacpp.api.synthetic import (
    FULL,
    NUM_CACHED,
    NUM_PROMPT,
    Script,
    calls,
    fails,
    scripts,
    streamed,
    whole,
)

PLAIN_TEMPLATE = ChatTemplate("{{ messages[0].content }}{{ tools }}")
SWITCHED = ChatTemplate("{{ messages[0].content }}{% if thinking %}<think>{% endif %}{{ '</think>' if x }}")
ALWAYS = ChatTemplate("{{ messages[0].content.split('</think>') }}<think>\n")
HELLO = [{"role": "user", "content": "hi"}]
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}


def chat(template: ChatTemplate = PLAIN_TEMPLATE, **fields: Any) -> ChatRequest:
    return api.read(orjson.dumps({"messages": HELLO, "max_tokens": 2000, **fields}), template)


def take(**fields: Any) -> None:
    """The steps of the server until the answer is begun."""
    asked = chat(**fields)
    with renaming(api.RENAMES):
        check(asked)
        callable_tools(asked, tools_of(asked))
        stops(asked)


def messages(*turns: tuple[str, Any], **fields: Any) -> list[dict[str, Any]]:
    given_turns = [{"role": role, "content": content} for role, content in turns]
    return template_messages(chat(messages=given_turns, **fields).messages)


def text(*parts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": part} for part in parts]


def result(content: Any = "x", identity: str = "t1", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **fields}


# ---------------------------------------------------------------------- what a request means


def test_blocks_become_messages() -> None:
    shown = {"type": "function", "id": "t1", "function": {"name": "f", "arguments": {"a": 1}}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "abc"}
    cached = {"cache_control": {"type": "ephemeral"}}
    found = messages(
        ("user", text("a", "b")),
        ("assistant", [thought, *text("Wait."), USE | cached]),
        ("user", [result(text("one", " two")) | cached, *text("Go on.")]),
        ("assistant", "Done."),
        ("user", "Thanks."),
        system=[{"type": "text", "text": "Be brief.", **cached}],
    )
    assert found == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "Wait.", "reasoning_content": "hm", "tool_calls": [shown]},
        {"role": "tool", "content": "one two", "tool_call_id": "t1"},
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks."},
    ]


def test_turns_of_one_side_are_one_turn() -> None:
    found = messages(
        ("user", "a"), ("user", text("b")), ("assistant", "c"), ("assistant", [USE]), ("user", [result("", is_error=True)]),
        ("user", "d"), ("assistant", [USE]), ("assistant", "e"), ("system", "f"), ("user", "g"),
    )  # fmt: skip
    assert [(message["role"], message["content"]) for message in found] == [
        ("user", "a\n\nb"), ("assistant", "c"), ("tool", "Error: "), ("user", "d"), ("assistant", ""), ("assistant", "e"),
        ("system", "f"), ("user", "g"),
    ]  # fmt: skip
    assert [len(message.get("tool_calls", ())) for message in found] == [0, 1, 0, 0, 1, 0, 0, 0]


def test_a_failed_call_says_so() -> None:
    found = messages(
        ("user", "a"), ("assistant", [USE]), ("user", [result("no such city", is_error=True), result("ok")])
    )
    assert [message["content"] for message in found[2:]] == ["Error: no such city", "ok"]


def test_the_rest_of_a_request() -> None:
    request = chat(
        model="demo", temperature=0.5, top_p=0.5, top_k=3, seed=4, stream=True, stop_sequences=["x"], tools=[TOOL],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True}, metadata={"user_id": "me"},
        service_tier="auto", cache_control={"type": "ephemeral"}, betas=["x"], system="",
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
    )  # fmt: skip
    assert (request.model, request.stream, request.stop, request.parallel_tool_calls) == ("demo", True, ["x"], False)
    assert (request.temperature, request.top_p, request.top_k, request.seed) == (0.5, 0.5, 3, 4)
    assert [tool.parameters for tool in callable_tools(request, tools_of(request))] == [TOOL["input_schema"]]
    assert request.response_format is not None
    assert request.response_format.json_schema is not None
    assert request.response_format.json_schema.schema == {"type": "object"}
    kinds = {kind: chat(tools=[TOOL], tool_choice={"type": kind}).tool_choice for kind in ("auto", "any", "none")}
    assert kinds == {"auto": "auto", "any": "required", "none": "none"}
    assert chat(tools=[TOOL]).parallel_tool_calls is None


def test_an_answer_may_be_bounded_by_the_context() -> None:
    assert answer_budget(chat(max_tokens=5000), 100, 2048) == 1948
    assert answer_budget(chat(max_tokens=0), 100, 2048) == 0
    assert answer_budget(chat(max_tokens=7), 100, 2048) == 7
    with pytest.raises(RequestError) as caught:
        answer_budget(chat(), 3000, 2048)
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")


def test_thinking_is_switched_where_the_template_has_a_switch() -> None:
    on = {"type": "enabled", "budget_tokens": 1024}
    off, own = {"type": "disabled"}, {"type": "adaptive", "display": "summarized"}
    assert chat(SWITCHED, thinking=on).chat_template_kwargs == {"thinking": True}
    assert chat(SWITCHED, thinking=off).chat_template_kwargs == {"thinking": False}
    for template, thinking in (
        (ALWAYS, on),
        (PLAIN_TEMPLATE, off),
        (PLAIN_TEMPLATE, own),
        (ALWAYS, own),
        (SWITCHED, own),
    ):
        assert chat(template, thinking=thinking).chat_template_kwargs is None
    for template, thinking in ((PLAIN_TEMPLATE, on), (ALWAYS, off)):
        with pytest.raises(RequestError) as caught:
            chat(template, thinking=thinking)
        assert caught.value.param == "thinking.type"


def test_what_is_counted_is_what_would_be_asked() -> None:
    fields: dict[str, Any] = {
        "system": "s",
        "tools": [TOOL],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "disabled"},
    }
    counted = api.read_counted(orjson.dumps({"messages": HELLO, **fields}), SWITCHED)
    asked = chat(SWITCHED, **fields)
    for name in ("messages", "tools", "tool_choice", "chat_template_kwargs"):
        assert getattr(counted, name) == getattr(asked, name)


# ---------------------------------------------------------------------- what is refused


def turn(content: Any, role: str = "user") -> list[Any]:
    return [*HELLO, {"role": "assistant", "content": [USE]}, {"role": role, "content": content}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
        ({"messages": turn([{"type": "image", "source": {}}])}, "messages[2].content[0].type"),
        ({"messages": turn([*text("x"), {"type": "document"}])}, "messages[2].content[1].type"),
        ({"messages": turn([result([{"type": "image"}])])}, "messages[2].content[0].content[0].type"),
        ({"messages": turn([result(identity="t9")])}, "messages[2].content[0].tool_use_id"),
        ({"messages": turn([USE])}, "messages[2].content[0].type"),
        ({"messages": turn([result()], "assistant")}, "messages[2].content[0].type"),
        ({"messages": turn([{"type": "redacted_thinking", "data": "x"}], "assistant")}, "messages[2].content[0].type"),
        ({"messages": turn([{"type": "text"}])}, "messages[2].content[0].text"),
        ({"messages": turn([{"type": "text", "text": "x", "y": 1}])}, "messages[2].content[0].y"),
        ({"messages": turn("The answer is", "assistant")}, "messages[2].role"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL | {"input_schema": {"type": "string"}}]}, "tools[0].input_schema.type"),
        ({"tools": [TOOL | {"input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
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
        ({"tools": [TOOL]}, GrammarError("no", "f.parameters.properties.a"), "tools.f.input_schema.properties.a"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, GrammarError("no", "a"), "output_config.format.schema.a"),
    ],
)  # fmt: skip
def test_what_a_grammar_cannot_express_is_named(fields: dict[str, Any], error: GrammarError, param: str) -> None:
    with pytest.raises(RequestError) as caught, renaming(api.RENAMES):
        raise refused(error, chat(**fields))
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: cannot be followed")


# ---------------------------------------------------------------------- how the answer looks


def wire(script: Script, max_tokens: int | None = None) -> MessagesWire:
    return MessagesWire("demo", script.token_text, len(script.tokens) if max_tokens is None else max_tokens)


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    blocks = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    return message | {"id": "", "content": blocks}


@settings(max_examples=150, deadline=None)
@given(scripts(stops=True))
def test_a_stream_is_well_formed_and_the_same_answer(script: Script) -> None:
    if fails(script, wire(script)):
        try:
            assert check_messages(streamed(script, wire(script)))["error"]["message"] == "it broke"
        except AnswerFailed:
            assert not script.tokens
        return
    message = whole(script, wire(script))
    from_stream = check_messages(streamed(script, wire(script)))
    asked = whole(script, ChatWire("demo", script.token_text))["choices"][0]["message"]
    uses = [block for block in from_stream["content"] if block["type"] == "tool_use"]
    functions = [entry["function"] for entry in asked.get("tool_calls", ())]
    assert [(use["name"], use["input"]) for use in uses] == [(f["name"], f["arguments"]) for f in functions]
    for use in uses:
        use["input"] = partial_object(use["input"])
    assert without_ids(from_stream) == without_ids(message)
    said = "".join(block["text"] for block in message["content"] if block["type"] == "text")
    thought = "".join(block["thinking"] for block in message["content"] if block["type"] == "thinking")
    assert (said, thought) == (asked["content"] or "", asked.get("reasoning_content", ""))


CALL = b'<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("script", "max_tokens", "reason", "sequence"),
    [
        (Script((b"Hi",)), 9, "end_turn", None),
        (Script(()), 9, "end_turn", None),
        (Script((b"Hi", b" there"), Finish.LENGTH), 2, "max_tokens", None),
        (Script((), Finish.LENGTH), 0, "max_tokens", None),
        (Script((b"Hi", b" there"), Finish.LENGTH), 9, "model_context_window_exceeded", None),
        (Script((b"Hi", b" there"), stops=("er", "the")), 9, "stop_sequence", "the"),
        (Script((CALL,)), 9, "tool_use", None),
        (Script((CALL,), stops=("arg",)), 9, "stop_sequence", "arg"),
        (Script((CALL[:-30],), Finish.LENGTH), 1, "max_tokens", None),
    ],
)
def test_why_it_ended(script: Script, max_tokens: int, reason: str, sequence: str | None) -> None:
    for message in (
        whole(script, wire(script, max_tokens)),
        check_messages(streamed(script, wire(script, max_tokens))),
    ):
        assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_every_field_that_the_sdk_knows_is_there() -> None:
    tokens = (b"<think>", b"so", b"</think>", b"Hm", b'<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": ', b"12")
    script = Script(tokens, Finish.LENGTH, FULL)
    message = sdk.Message.model_validate(whole(script, wire(script)), strict=True)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[2].input == {"a": 1}  # type: ignore[union-attr]
    assert message.content[0].signature  # type: ignore[union-attr]
    assert message.usage.input_tokens == NUM_PROMPT - NUM_CACHED
    assert (message.usage.cache_read_input_tokens, message.usage.output_tokens) == (NUM_CACHED, 6)


@settings(deadline=None)
@given(calls.map(lambda call: call[1]))
def test_what_is_whole_of_a_cut_off_object(arguments: str) -> None:
    wanted = orjson.loads(arguments)
    assert partial_object(arguments) == wanted
    previous: dict[str, Any] = {}
    for length in range(len(arguments)):
        found = partial_object(arguments[:length])
        assert is_beginning(found, wanted)
        assert is_beginning(previous, found)
        previous = found


def is_beginning(part: Any, of: Any) -> bool:
    """Whether `part` is `of` with nothing but the end missing."""
    if isinstance(part, dict) and isinstance(of, dict):
        return list(part) == list(of)[: len(part)] and all(is_beginning(part[key], of[key]) for key in part)
    if isinstance(part, list) and isinstance(of, list):
        return len(part) <= len(of) and all(is_beginning(item, other) for item, other in zip(part, of, strict=False))
    return bool(part == of)
