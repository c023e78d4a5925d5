"""Answers of a form: JSON of a schema, and calls of tools, free and demanded."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest

from tests.contract.engines import MODEL, Running

FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
JACK: list[Any] = [
    {
        "role": "user",
        "content": 'Use this JSON schema for the answer: {"type": "object", "properties": {"age": {"type": "integer"}, '
        '"city": {"type": "string"}}, "required": ["age", "city"]}\nJack, 43, a farmer in Berlin, has no pet and always wears pink.',
    }
]
WEATHER: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": description, "parameters": CITY}}
    for name, description in (("get_time", "Local time of a city"), ("get_weather", "Current weather of a city"))
]


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)
    mood: Literal["good", "bad"]
    tags: list[Literal["x", "y"]] = pydantic.Field(max_length=3)


class TestJson:
    @pytest.fixture(autouse=True)
    def follows(self, model: Running) -> None:
        model.needs("chat", "json_schema")

    def test_an_answer_follows_its_schema(self, model: Running) -> None:
        with model.openai() as client:
            for seed in range(3):
                answer = client.chat.completions.parse(
                    model=MODEL, messages=FRANCE, response_format=Person, max_tokens=200, seed=seed, temperature=1.2
                )
                assert answer.choices[0].finish_reason == "stop"
                assert isinstance(answer.choices[0].message.parsed, Person)

    def test_a_stream_follows_it_too(self, model: Running) -> None:
        schema = {"name": "person", "schema": Person.model_json_schema(), "strict": True}
        with model.openai() as client:
            stream = client.chat.completions.create(
                model=MODEL, messages=FRANCE, max_tokens=200, temperature=0, stream=True,
                response_format={"type": "json_schema", "json_schema": schema},  # type: ignore[typeddict-item]
            )  # fmt: skip
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert Person.model_validate_json(text)

    def test_any_json_object(self, model: Running) -> None:
        with model.openai() as client:
            answer = client.chat.completions.create(
                model=MODEL, messages=JACK, max_tokens=300, temperature=0, response_format={"type": "json_object"}
            )
        found = json.loads(answer.choices[0].message.content or "")
        assert {"age", "city"} <= set(found)


class TestTools:
    @pytest.fixture(autouse=True)
    def calls_tools(self, model: Running) -> None:
        model.needs("chat", "tools")

    def ask(self, model: Running, messages: list[Any] = WEATHER, **options: Any) -> Any:
        with model.openai() as client:
            answer = client.chat.completions.create(
                model=MODEL, messages=messages, tools=TOOLS, temperature=0, max_tokens=200, **options
            )
        assert isinstance(answer, openai.types.chat.ChatCompletion)
        return answer.choices[0]

    def test_the_right_tool_is_called_and_its_result_is_used(self, model: Running) -> None:
        choice = self.ask(model)
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
        turns = [*WEATHER, choice.message.model_dump(exclude_none=True)]
        result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "sunny"}'}
        told = self.ask(model, [*turns, result])
        assert told.finish_reason == "stop"
        assert "21" in told.message.content

    def test_a_streamed_call_is_the_same(self, model: Running) -> None:
        whole = self.ask(model).message.tool_calls[0].function
        name, arguments, reasons = "", "", []
        with model.openai() as client:
            for chunk in client.chat.completions.create(
                model=MODEL, messages=WEATHER, tools=TOOLS, temperature=0, max_tokens=200, stream=True
            ):
                for choice in chunk.choices:
                    reasons += [choice.finish_reason] if choice.finish_reason else []
                    for part in choice.delta.tool_calls or []:
                        assert part.function is not None
                        name += part.function.name or ""
                        arguments += part.function.arguments or ""
        assert (name, json.loads(arguments)) == (whole.name, json.loads(whole.arguments))
        assert reasons == ["tool_calls"]

    def test_calls_are_demanded_and_forbidden(self, model: Running) -> None:
        named = self.ask(model, FRANCE, tool_choice={"type": "function", "function": {"name": "get_time"}})
        (call,) = named.message.tool_calls
        assert call.function.name == "get_time"
        assert set(json.loads(call.function.arguments)) == {"city"}
        required = self.ask(model, FRANCE, tool_choice="required")
        assert required.message.tool_calls
        assert {call.function.name for call in required.message.tool_calls} <= {"get_time", "get_weather"}
        assert not self.ask(model, tool_choice="none").message.tool_calls

    def test_what_is_no_question_for_a_tool_gets_text(self, model: Running) -> None:
        choice = self.ask(model, [{"role": "user", "content": "안녕하세요!"}])
        assert not choice.message.tool_calls
        assert choice.message.content
