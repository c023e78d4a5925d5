"""The official Anthropic SDK as the client of a real engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pydantic
import pytest
from anthropic.types import Message, ToolUseBlock

from backends.demo.corpus import held_out_items
from backends.llamacpp.api.partial import partial_object
from tests.backends.llamacpp.api.event_order import check_messages
from tests.engine_process import SECRET, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow]

HELLO: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=engine.url, api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


def options(**given: Any) -> dict[str, Any]:
    """Fields of a request: sampling is no longer among the SDK's own."""
    extra = {"temperature": 0, **{key: given.pop(key) for key in ("temperature", "seed", "top_k") if key in given}}
    return {"model": "demo", "messages": HELLO, "max_tokens": 100, "extra_body": extra, **given}


def ask(client: anthropic.Anthropic, **given: Any) -> Message:
    found = client.messages.create(**options(**given))
    assert isinstance(found, Message)
    return found


def raw_stream(engine: EngineProcess, **fields: Any) -> dict[str, Any]:
    """The message that a stream makes up whose every event was checked."""
    body = {"model": "demo", "messages": HELLO, "max_tokens": 100, "temperature": 0, "stream": True, **fields}
    with engine.client() as http:
        reply = http.post("/v1/messages", json=body)
    assert reply.status_code == 200, reply.text
    return check_messages(reply.content)


def tool_items(count: int) -> list[Any]:
    """Held-out questions that are answered by one call."""
    items = held_out_items("tool_calls", 120)
    return [item for item in items if "<tool_call>" in item.expected and len(item.messages) == 1][:count]


def own(tools: Any) -> Any:
    functions = [tool["function"] for tool in tools]
    return [
        {"name": f["name"], "description": f.get("description", ""), "input_schema": f["parameters"]} for f in functions
    ]


def text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def uses(message: Message) -> list[ToolUseBlock]:
    return [block for block in message.content if block.type == "tool_use"]


# ---------------------------------------------------------------------- text


def test_an_answer(client: anthropic.Anthropic, engine: EngineProcess) -> None:
    message = ask(client, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    assert (message.role, message.model, message.stop_reason, message.stop_sequence) == (
        "assistant",
        "demo",
        "end_turn",
        None,
    )
    asked = [{"role": "system", "content": "Be brief."}, *HELLO]
    with engine.client() as http:
        chat = http.post("/v1/chat/completions", json={"messages": asked, "temperature": 0}).json()
    assert text(message) == chat["choices"][0]["message"]["content"]
    read = message.usage.cache_read_input_tokens
    assert read is not None
    assert message.usage.input_tokens + read == chat["usage"]["prompt_tokens"]
    assert message.usage.output_tokens == chat["usage"]["completion_tokens"]


def test_a_stream_is_the_same_answer(client: anthropic.Anthropic) -> None:
    message = ask(client)
    with client.messages.stream(**options()) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == text(final) == text(message)
    assert len(pieces) > 1
    assert (final.stop_reason, final.usage.output_tokens) == (message.stop_reason, message.usage.output_tokens)


def test_why_an_answer_ends(client: anthropic.Anthropic, engine: EngineProcess) -> None:
    whole = text(ask(client))
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = ask(client, stop_sequences=["never occurs", stop])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    assert text(cut) == whole[: whole.index(stop)]
    assert raw_stream(engine, stop_sequences=[stop])["stop_sequence"] == stop
    assert ask(client, max_tokens=2).stop_reason == "max_tokens"
    assert raw_stream(engine, max_tokens=2)["stop_reason"] == "max_tokens"
    nothing = ask(client, max_tokens=0)
    assert (nothing.stop_reason, nothing.content) == ("max_tokens", [])
    assert ask(client, max_tokens=1_000_000).stop_reason == "end_turn", "an upper bound, not a demand"


def test_counted_tokens_are_those_of_the_prompt(client: anthropic.Anthropic) -> None:
    item = tool_items(1)[0]
    for fields in (
        {},
        {"system": "Be brief."},
        {"tools": own(item.tools)},
        {"tools": own(item.tools), "tool_choice": {"type": "none"}},
        {"tools": own(item.tools), "tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}},
        {"messages": [*HELLO, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "Sure?"}]},
    ):
        counted = client.messages.count_tokens(**{"model": "demo", "messages": HELLO, **fields}).input_tokens
        usage = ask(client, max_tokens=1, **fields).usage
        assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)


def test_an_answer_follows_its_schema(client: anthropic.Anthropic) -> None:
    schema = {"format": {"type": "json_schema", "schema": Person.model_json_schema()}}
    for seed in range(3):
        message = ask(client, output_config=schema, temperature=1, seed=seed, max_tokens=200)
        assert message.stop_reason == "end_turn"
        Person.model_validate_json(text(message))


# ---------------------------------------------------------------------- tools


WEATHER: Any = {
    "name": "get_weather",
    "description": "Current weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
                     "additionalProperties": False},
}  # fmt: skip


def test_the_model_calls_the_tool_that_fits(client: anthropic.Anthropic) -> None:
    num_right = 0
    for item in tool_items(12):
        message = ask(client, messages=list(item.messages), tools=own(item.tools))
        assert message.stop_reason == ("tool_use" if uses(message) else "end_turn")
        wanted = json.loads(item.expected.split("<tool_call>")[1].split("</tool_call>")[0])
        num_right += [(use.name, use.input) for use in uses(message)] == [(wanted["name"], wanted["arguments"])]
    assert num_right >= 10


def test_a_streamed_call_is_the_same_and_its_result_is_read(client: anthropic.Anthropic) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    asked = {"messages": [question], "tools": [WEATHER]}
    (whole,) = uses(ask(client, **asked))
    with client.messages.stream(**options(**asked)) as stream:
        num_pieces = sum(event.type == "input_json" for event in stream)
        message = stream.get_final_message()
    (use,) = uses(message)
    assert message.stop_reason == "tool_use"
    assert (use.name, use.input) == (whole.name, whole.input) == ("get_weather", {"city": "Paris"})
    assert num_pieces > 1
    content = [{"type": "text", "text": '{"temperature": 21, "sky": "sunny"}'}]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": content}
    turns = [question, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = ask(client, messages=turns, tools=[WEATHER])
    assert "21" in text(answer)
    assert answer.stop_reason == "end_turn"


def test_a_call_can_be_demanded_or_forbidden(client: anthropic.Anthropic) -> None:
    item = tool_items(1)[0]
    tools = own(item.tools)
    names = [tool["name"] for tool in tools]
    for choice in ({"type": "any"}, {"type": "tool", "name": names[-1]}):
        message = ask(client, tools=tools, tool_choice={**choice, "disable_parallel_tool_use": True})
        (use,) = uses(message)
        assert message.stop_reason == "tool_use"
        assert use.name in names
        assert choice["type"] == "any" or use.name == names[-1]
    assert not uses(ask(client, messages=list(item.messages), tools=tools, tool_choice={"type": "none"}))


@pytest.mark.parametrize("length", [3, 8, 14, 20])
def test_a_call_that_is_cut_off(client: anthropic.Anthropic, engine: EngineProcess, length: int) -> None:
    item = tool_items(1)[0]
    asked = {"messages": list(item.messages), "tools": own(item.tools), "max_tokens": length}
    message = ask(client, **asked)
    streamed = raw_stream(engine, **asked)
    assert message.stop_reason == streamed["stop_reason"] == "max_tokens"
    parts = [block for block in streamed["content"] if block["type"] == "tool_use"]
    assert [(use.name, use.input) for use in uses(message)] == [(p["name"], partial_object(p["input"])) for p in parts]
    with client.messages.stream(**options(**asked)) as stream:
        assert len(stream.get_final_message().content) == len(message.content)


def test_random_requests_have_streams_in_order(engine: EngineProcess) -> None:
    """Hot sampling, calls demanded or free, cut anywhere."""
    tools = own(tool_items(1)[0].tools)
    forms: list[dict[str, Any]] = [
        {},
        {"tools": tools},
        {"tools": tools, "tool_choice": {"type": "any"}},
        {
            "stop_sequences": ["e", "a"],
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        },
    ]
    for seed, (form, length) in enumerate(itertools.product(forms, (0, 1, 7, 40))):
        raw_stream(engine, **form, temperature=1, seed=seed, max_tokens=length)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "data:,"}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "It is"}]}, "prefill"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "2048"),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, "thinking.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "x"}}}}]},
         "tools.f.input_schema.properties.a"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"temperature": 1.5}, "temperature"),
    ],
)  # fmt: skip
def test_bad_requests_name_the_field(client: anthropic.Anthropic, given: dict[str, Any], words: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, **given)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert words in body["error"]["message"]


def test_other_errors(client: anthropic.Anthropic, engine: EngineProcess) -> None:
    with pytest.raises(anthropic.NotFoundError):
        ask(client, model="claude-9")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="claude-9", messages=HELLO)
    with anthropic.Anthropic(base_url=engine.url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            ask(stranger)
    with engine.client() as http:
        assert http.get("/v1/messages").json()["error"]["type"] == "invalid_request_error"
        reply = http.post("/v1/messages", content=b"{", headers={"x-request-id": "req-7"}).json()
        assert (reply["type"], reply["request_id"]) == ("error", "req-7")


def test_the_secret_may_come_either_way(engine: EngineProcess) -> None:
    with anthropic.Anthropic(base_url=engine.url, auth_token=SECRET, api_key=None, max_retries=0) as client:
        assert ask(client, max_tokens=1).usage.output_tokens == 1
    body = {"messages": HELLO, "max_tokens": 1}
    for headers, status in (({"x-api-key": SECRET}, 200), ({"x-api-key": ""}, 401), ({}, 401)):
        reply = httpx.post(
            f"{engine.url}/v1/messages", json=body, headers={"anthropic-version": "2023-06-01", **headers}
        )
        assert reply.status_code == status
