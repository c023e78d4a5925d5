"""The official OpenAI SDK asking a real engine for several answers, for JSON of a schema, and for tool calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest

from backends.demo.corpus import held_out_items
from tests.engine_process import SECRET, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow]

HELLO: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def exact(exact_engine: EngineProcess) -> Iterator[openai.OpenAI]:
    """Where an answer is to be the same bit for bit: elsewhere the last digits of a logit depend on the batch and the cache."""
    with openai.OpenAI(base_url=f"{exact_engine.url}/v1", api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


# ---------------------------------------------------------------------- several answers


def test_several_answers_share_one_prompt(client: openai.OpenAI, engine: EngineProcess) -> None:
    prompt = [{"role": "user", "content": "Tell me about number four hundred and five. " * 6}]
    before = engine.metric("prompt_tokens_total")
    answer = client.chat.completions.create(model="demo", messages=prompt, n=12, seed=5, max_tokens=12)  # type: ignore[arg-type]
    assert [choice.index for choice in answer.choices] == list(range(12))
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage is not None
    computed = engine.metric("prompt_tokens_total") - before
    assert computed < answer.usage.prompt_tokens + 12 * 2, "the prompt was computed more than once"
    assert answer.usage.completion_tokens <= 12 * 12
    engine.wait_idle()


def test_several_answers_of_one_seed_are_the_same_again(exact: openai.OpenAI) -> None:
    prompt: list[Any] = [{"role": "user", "content": "Tell me about number four hundred and five. " * 6}]
    first, again = (
        exact.chat.completions.create(model="demo", messages=prompt, n=12, seed=5, max_tokens=12) for _ in range(2)
    )
    assert len({choice.message.content for choice in first.choices}) > 1
    assert [c.message.content for c in again.choices] == [c.message.content for c in first.choices]


def test_several_greedy_answers_are_the_one_answer(exact: openai.OpenAI) -> None:
    one = exact.chat.completions.create(model="demo", messages=HELLO, temperature=0, max_tokens=20)
    several = exact.chat.completions.create(model="demo", messages=HELLO, temperature=0, max_tokens=20, n=3)
    assert {choice.message.content for choice in several.choices} == {one.choices[0].message.content}


def test_several_answers_are_streamed_by_index(exact: openai.OpenAI) -> None:
    texts = ["", "", ""]
    ends = []
    for chunk in exact.chat.completions.create(
        model="demo", messages=HELLO, n=3, seed=1, max_tokens=10, stream=True, temperature=1.5
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
    assert sorted(ends) == [0, 1, 2]
    whole = exact.chat.completions.create(model="demo", messages=HELLO, n=3, seed=1, max_tokens=10, temperature=1.5)
    assert [choice.message.content for choice in whole.choices] == texts


def test_the_likeliest_of_several_are_given(exact: openai.OpenAI) -> None:
    def complete(**options: Any) -> openai.types.Completion:
        return exact.completions.create(
            model="demo", prompt="The capital", max_tokens=8, seed=3, temperature=2, **options
        )

    def score(choice: openai.types.CompletionChoice) -> float:
        assert choice.logprobs is not None
        values = [value for value in choice.logprobs.token_logprobs or () if value is not None]
        return sum(values) / len(values)

    everyone = complete(n=6, logprobs=0)
    best = complete(n=2, best_of=6, logprobs=0)
    ranked = sorted(everyone.choices, key=score, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage is not None
    assert everyone.usage is not None
    assert best.usage.completion_tokens == everyone.usage.completion_tokens, "what is thrown away was computed too"
    assert complete(n=1, best_of=6).choices[0].logprobs is None
    for options, param in (({"n": 3, "best_of": 2}, "best_of"), ({"best_of": 2, "stream": True}, "best_of")):
        with pytest.raises(openai.BadRequestError) as caught:
            complete(**options)
        assert caught.value.param == param


# ---------------------------------------------------------------------- JSON


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)
    mood: Literal["good", "bad"]
    tags: list[Literal["x", "y"]] = pydantic.Field(max_length=3)


def test_an_answer_follows_its_schema(client: openai.OpenAI) -> None:
    for seed in range(5):
        answer = client.chat.completions.parse(
            model="demo", messages=HELLO, response_format=Person, max_tokens=200, seed=seed, temperature=1.2
        )
        assert answer.choices[0].finish_reason == "stop"
        assert isinstance(answer.choices[0].message.parsed, Person)


def test_a_schema_is_followed_in_a_stream_and_by_each_of_several(client: openai.OpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": Person.model_json_schema()}}
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(
        model="demo", messages=HELLO, n=3, seed=1, max_tokens=200, stream=True, temperature=1, response_format=schema
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    for text in texts:
        Person.model_validate_json(text)


def test_any_json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=HELLO, response_format={"type": "json_object"}, max_tokens=300, temperature=0
    )
    text = answer.choices[0].message.content or ""
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_log_probabilities_cover_every_token_of_json(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=200, temperature=0, logprobs=True,
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}},
    )  # fmt: skip
    choice = answer.choices[0]
    assert choice.logprobs is not None
    assert "".join(entry.token for entry in choice.logprobs.content or ()) == choice.message.content


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"not": {}}}}}}, "properties.a.properties.b"),
        ({"type": "array", "items": {"type": "string", "pattern": "(?=a)b"}}, "items"),
        ({"$defs": {"x": {"type": "strin"}}, "type": "object", "properties": {"q": {"$ref": "#/$defs/x"}}}, "$defs.x"),
        ({"anyOf": [{"type": "string"}, {"type": "array", "uniqueItems": True}]}, "anyOf.1"),
        ({"$ref": "https://example.com/schema.json"}, ""),
    ],
)  # fmt: skip
def test_what_a_schema_cannot_express_is_named(client: openai.OpenAI, schema: dict[str, Any], path: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="demo", messages=HELLO,
            response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": schema}},
        )  # fmt: skip
    assert caught.value.param == ".".join(part for part in ("response_format.json_schema.schema", path) if part)


# ---------------------------------------------------------------------- tools

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
                       "additionalProperties": False},
    },
}  # fmt: skip
TIME: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Seoul"]}}, "required": ["city"],
                       "additionalProperties": False},
    },
}  # fmt: skip


def tool_items(count: int) -> list[Any]:
    """Held-out questions that are answered by one call."""
    items = held_out_items("tool_calls", 120)
    return [item for item in items if "<tool_call>" in item.expected and len(item.messages) == 1][:count]


def test_the_model_calls_the_tool_that_fits(client: openai.OpenAI) -> None:
    num_right = 0
    items = tool_items(20)
    assert len(items) == 20
    for item in items:
        answer = client.chat.completions.create(
            model="demo", messages=item.messages, tools=item.tools, temperature=0, max_tokens=100
        )
        choice = answer.choices[0]
        calls = choice.message.tool_calls or []
        assert choice.finish_reason == ("tool_calls" if calls else "stop")
        wanted = json.loads(item.expected.split("<tool_call>")[1].split("</tool_call>")[0])
        num_right += [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
            (wanted["name"], wanted["arguments"])
        ]
    assert num_right >= 18


def test_a_streamed_call_is_the_same_call(client: openai.OpenAI) -> None:
    item = tool_items(1)[0]
    options: Any = {"model": "demo", "messages": item.messages, "tools": item.tools, "temperature": 0}
    whole = client.chat.completions.create(**options, max_tokens=100).choices[0].message.tool_calls or []
    with client.chat.completions.stream(**options, max_tokens=100) as stream:
        num_argument_events = sum(event.type == "tool_calls.function.arguments.delta" for event in stream)
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.content in (None, "")
    streamed = final.message.tool_calls or []
    assert [call.function.arguments for call in streamed] == [call.function.arguments for call in whole]
    assert [call.function.name for call in streamed] == [call.function.name for call in whole]
    assert num_argument_events > 1
    assert all(call.id for call in streamed)


def test_the_result_of_a_call_is_read(client: openai.OpenAI) -> None:
    asked = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature": 21, "sky": "sunny"}'},
    ]  # fmt: skip
    answer = client.chat.completions.create(
        model="demo",
        messages=asked,
        tools=[WEATHER],
        temperature=0,
        max_tokens=60,  # type: ignore[arg-type]
    )
    assert "21" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_can_be_demanded(client: openai.OpenAI, choice: Any, stream: bool) -> None:
    options: Any = {
        "model": "demo", "messages": HELLO, "tools": [WEATHER, TIME], "tool_choice": choice,
        "parallel_tool_calls": False, "max_tokens": 120, "seed": 4,
    }  # fmt: skip
    if stream:
        with client.chat.completions.stream(**options) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**options).choices[0].message
    calls = message.tool_calls or []
    assert len(calls) == 1
    arguments = json.loads(calls[0].function.arguments)
    if calls[0].function.name == "get_time":
        assert arguments["city"] in ("Paris", "Seoul")
    else:
        assert choice == "required"
        assert set(arguments) == {"city"}
    assert not message.content


def test_several_calls_in_one_answer(client: openai.OpenAI) -> None:
    """A model that has called twice before, asked to call, with the end ruled out for a while."""
    answer = client.chat.completions.create(
        model="demo", messages=HELLO, tools=[TIME], tool_choice="required", max_tokens=400, temperature=0,
        extra_body={"min_tokens": 60},
    )  # fmt: skip
    calls = answer.choices[0].message.tool_calls or []
    assert len(calls) > 1
    for call in calls[:-1] if answer.choices[0].finish_reason == "length" else calls:
        assert json.loads(call.function.arguments)["city"] in ("Paris", "Seoul")
    assert len({call.id for call in calls}) == len(calls)


def test_no_call_where_none_is_wanted(client: openai.OpenAI) -> None:
    item = tool_items(1)[0]
    answer = client.chat.completions.create(
        model="demo", messages=item.messages, tools=item.tools, tool_choice="none", temperature=0, max_tokens=60
    )
    assert not answer.choices[0].message.tool_calls


def test_a_tools_schema_that_cannot_be_followed_is_named(client: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "strin"}}}}}  # fmt: skip
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=HELLO, tools=[tool])  # type: ignore[list-item]
    assert caught.value.param == "tools.f.parameters.properties.a"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="demo", messages=HELLO, tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "nothing"}},
        )  # fmt: skip
    assert caught.value.param == "tool_choice"
    assert "get_weather" in caught.value.message
