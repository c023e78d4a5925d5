"""The official OpenAI SDK asking a real engine through the Responses API."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall

from backends.demo.corpus import held_out_items
from tests.backends.llamacpp.api.event_order import check_responses
from tests.engine_process import SECRET, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow]

HELLO = "What is the capital of France?"


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> Response:
    found = client.responses.create(**{"model": "demo", "input": HELLO, "temperature": 0, **options})
    assert isinstance(found, Response)
    return found


def raw_stream(engine: EngineProcess, **fields: Any) -> dict[str, Any]:
    """The response with which a stream ends whose every event was checked."""
    with engine.client() as http:
        reply = http.post("/v1/responses", json={"model": "demo", "input": HELLO, "stream": True, **fields})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return check_responses(reply.content)


def tool_items(count: int) -> list[Any]:
    """Held-out questions that are answered by one call."""
    items = held_out_items("tool_calls", 120)
    return [item for item in items if "<tool_call>" in item.expected and len(item.messages) == 1][:count]


def flat(tools: Any) -> Any:
    return [{"type": "function", "strict": True, **tool["function"]} for tool in tools]


def calls(response: Response) -> list[ResponseFunctionToolCall]:
    return [item for item in response.output if item.type == "function_call"]


# ---------------------------------------------------------------------- text


def test_an_answer(client: openai.OpenAI) -> None:
    response = ask(client, instructions="Be brief.", metadata={"a": "b"}, store=True)
    assert response.output_text
    assert (response.status, response.model, response.instructions) == ("completed", "demo", "Be brief.")
    assert (response.store, response.metadata) == (False, {"a": "b"})  # type: ignore[attr-defined]
    assert response.usage is not None
    chat = client.chat.completions.create(
        model="demo",
        temperature=0,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELLO}],
    )
    assert response.output_text == chat.choices[0].message.content
    assert chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens


def test_a_stream_is_the_same_answer(client: openai.OpenAI, engine: EngineProcess) -> None:
    response = ask(client)
    with client.responses.stream(model="demo", input=HELLO, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == response.output_text
    assert raw_stream(engine, temperature=0)["output"][0]["content"][0]["text"] == text


def test_too_short_an_answer_is_incomplete(client: openai.OpenAI, engine: EngineProcess) -> None:
    response = ask(client, max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]
    streamed = raw_stream(engine, temperature=0, max_output_tokens=2)
    assert streamed["output"][0]["content"][0]["text"] == response.output_text


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    first = ask(client)
    again = ask(client, input=[{"role": "user", "content": HELLO}, *first.output, {"role": "user", "content": "Sure?"}])
    assert again.status == "completed"
    assert again.usage is not None
    assert first.usage is not None
    assert again.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    assert again.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens


def test_log_probabilities(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part: Any = ask(client, **options).output[0].content[0]  # type: ignore[union-attr]
    data = b"".join(bytes(entry.bytes) for entry in part.logprobs)
    assert data.decode() == part.text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    entries = []
    for event in client.responses.create(model="demo", input=HELLO, temperature=0, stream=True, **options):
        if event.type == "response.output_text.delta":
            entries += [entry.token for entry in event.logprobs]
    assert entries == [entry.token for entry in part.logprobs]


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)


def test_an_answer_follows_its_schema(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model="demo", input=HELLO, text_format=Person, max_output_tokens=200, temperature=1.2, extra_body={"seed": 1}
    )
    assert isinstance(parsed.output_parsed, Person)
    with client.responses.stream(
        model="demo", input=HELLO, text_format=Person, max_output_tokens=200, temperature=1.2, extra_body={"seed": 1}
    ) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed
    text = ask(client, text={"format": {"type": "json_object"}}, max_output_tokens=300).output_text
    assert text.startswith("{")


# ---------------------------------------------------------------------- tools


WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Current weather of a city",
    "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
                   "additionalProperties": False},
}  # fmt: skip


def test_the_model_calls_the_tool_that_fits(client: openai.OpenAI) -> None:
    num_right = 0
    items = tool_items(12)
    for item in items:
        response = ask(client, input=item.messages, tools=flat(item.tools), max_output_tokens=100)
        wanted = json.loads(item.expected.split("<tool_call>")[1].split("</tool_call>")[0])
        found = [(call.name, json.loads(call.arguments)) for call in calls(response)]
        num_right += found == [(wanted["name"], wanted["arguments"])]
    assert num_right >= 10


def test_a_streamed_call_is_the_same_and_its_result_is_read(client: openai.OpenAI, engine: EngineProcess) -> None:
    asked: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    (whole,) = calls(ask(client, input=asked, tools=[WEATHER]))
    with client.responses.stream(model="demo", input=asked, tools=[WEATHER], temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        response = stream.get_final_response()
    (call,) = calls(response)
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert "".join(deltas) == call.arguments == whole.arguments
    assert len(deltas) > 1
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 21, "sky": "sunny"}'}
    answer = ask(client, input=[*asked, *response.output, result], tools=[WEATHER])
    assert "21" in answer.output_text
    assert raw_stream(engine, input=asked, tools=[WEATHER], temperature=0)["output"][0]["type"] == "function_call"


def test_a_call_can_be_demanded_or_forbidden(client: openai.OpenAI) -> None:
    item = tool_items(1)[0]
    names = [tool["function"]["name"] for tool in item.tools]
    for choice in ("required", {"type": "function", "name": names[-1]}):
        response = ask(client, tools=flat(item.tools), tool_choice=choice, parallel_tool_calls=False)
        (call,) = calls(response)
        assert call.name in names
        assert choice == "required" or call.name == names[-1]
        json.loads(call.arguments)
        assert response.parallel_tool_calls is False
    assert not calls(ask(client, input=item.messages, tools=flat(item.tools), tool_choice="none"))


@pytest.mark.parametrize("length", [3, 8, 14, 20])
def test_a_call_that_is_cut_off(client: openai.OpenAI, engine: EngineProcess, length: int) -> None:
    item = tool_items(1)[0]
    options = {"input": item.messages, "tools": flat(item.tools), "temperature": 0}
    response = ask(client, **options, max_output_tokens=length)
    streamed = raw_stream(engine, **options, max_output_tokens=length)
    assert response.status == streamed["status"] == "incomplete"
    found = [(call.name, call.arguments, call.status) for call in calls(response)]
    parts = [item for item in streamed["output"] if item["type"] == "function_call"]
    assert found == [(part["name"], part["arguments"], part["status"]) for part in parts]
    assert all(status == "incomplete" for _, _, status in found)


def test_random_requests_have_streams_in_order(engine: EngineProcess) -> None:
    """Hot sampling, calls demanded or free, cut anywhere."""
    tools = flat(tool_items(1)[0].tools)
    forms: list[dict[str, Any]] = [
        {},
        {"tools": tools},
        {"tools": tools, "tool_choice": "required"},
        {"text": {"format": {"type": "json_object"}}, "include": ["message.output_text.logprobs"]},
    ]
    for seed, (form, length) in enumerate(itertools.product(forms, (1, 2, 7, 40))):
        raw_stream(engine, **form, temperature=1.8, seed=seed, max_output_tokens=length)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}, "input[0].content[0].type"),
        ({"input": "word " * 5000}, "input"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "x"}}}}]},
         "tools.f.parameters.properties.a"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "array", "uniqueItems": True}}}},
         "text.format.schema"),
        ({"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"extra_body": {"stop": "x"}}, "stop"),
    ],
)  # fmt: skip
def test_bad_requests_name_the_field(client: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert caught.value.param == param
    assert "messages" not in caught.value.message


def test_other_errors(client: openai.OpenAI, engine: EngineProcess) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(client, model="gpt-9")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            ask(stranger)
    assert {"responses", "messages"} <= set(client.models.list().data[0].capabilities)  # type: ignore[attr-defined]
