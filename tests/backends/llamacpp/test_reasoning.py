"""A real engine with a template that reasons and knows no tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.backends.llamacpp.api.event_order import check_messages, check_responses
from tests.engine_process import SECRET, EngineProcess, engine_process

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content.split('</think>')[-1] }}<|im_end|>
{% endfor -%}
<|im_start|>assistant
{% if enable_thinking is not defined or enable_thinking %}<think>
{% endif %}"""
ASK: list[Any] = [{"role": "user", "content": "What is 2 + 3?"}]
TOOL: Any = {"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"enum": [2]}, "b": {"enum": [3]}}, "required": ["a", "b"],
    "additionalProperties": False}}}  # fmt: skip


@pytest.fixture(scope="module")
def engine(
    demo_gguf: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("reasoning")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    flags = ("--n-ctx", "2048", "--n-seq-max", "4", "--chat-template", str(template))
    with engine_process(demo_gguf, free_port(), folder / "engine.log", *flags) as process:
        yield process


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="demo", messages=ASK, **options)


def tokens(engine: EngineProcess, **fields: Any) -> Any:
    with engine.client() as client:
        return client.post("/tokenize", json=fields).json()


def test_thoughts_are_kept_apart(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=12, temperature=0, extra_body={"ignore_eos": True})
    message: Any = answer.choices[0].message
    assert message.reasoning_content
    assert message.content == ""
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 12


def test_thoughts_are_streamed_as_such(client: openai.OpenAI) -> None:
    whole: Any = ask(client, max_tokens=12, temperature=0, extra_body={"ignore_eos": True}).choices[0].message
    pieces = [
        getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
        for chunk in ask(client, max_tokens=12, temperature=0, stream=True, extra_body={"ignore_eos": True})  # type: ignore[union-attr]
    ]
    assert "".join(pieces) == whole.reasoning_content


def test_a_template_variable_switches_thinking_off(client: openai.OpenAI) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    message: Any = ask(client, max_tokens=40, temperature=0, extra_body=off).choices[0].message
    assert message.content
    assert not getattr(message, "reasoning_content", None)
    with pytest.raises(openai.BadRequestError, match="enable_thinking"):
        ask(client, extra_body={"chat_template_kwargs": {"thinking": False}})


def test_json_comes_after_the_thought(client: openai.OpenAI, engine: EngineProcess) -> None:
    """The thought is free; whatever ends it, only JSON may follow."""
    schema = {"type": "object", "properties": {"sum": {"const": 5}}, "required": ["sum"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    bias = {str(token): 60 for text in ("</", "think", ">") for token in tokens(engine, prompt=text)["tokens"][:1]}
    message: Any = (
        ask(client, max_tokens=400, temperature=1.5, seed=3, response_format=wanted, logit_bias=bias).choices[0].message
    )
    if message.content:
        assert message.content == '{"sum": 5}'
    assert message.reasoning_content or message.content
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert ask(client, max_tokens=50, response_format=wanted, extra_body=off).choices[0].message.content == '{"sum": 5}'


def test_a_model_is_told_of_tools_that_its_template_does_not_know(client: openai.OpenAI, engine: EngineProcess) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    plain = tokens(engine, messages=ASK, **off)
    told = tokens(engine, messages=ASK, tools=[TOOL], return_token_strs=True, **off)
    assert told["count"] > plain["count"] + 30
    text = "".join(told["token_strs"])
    assert '"name": "add"' in text
    message = (
        ask(client, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=80, extra_body=off)
        .choices[0]
        .message
    )
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"a": 2, "b": 3}'
    again = [
        *ASK,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "5"},
    ]
    shown = tokens(engine, messages=again, tools=[TOOL], return_token_strs=True, **off)
    text = "".join(shown["token_strs"])
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>' in text
    assert "<tool_response>\n5\n</tool_response>" in text


def test_thoughts_are_items_of_a_response(client: openai.OpenAI, engine: EngineProcess) -> None:
    fields: dict[str, Any] = {"model": "demo", "input": "What is 2 + 3?", "temperature": 0, "max_output_tokens": 6}
    response = client.responses.create(**fields, reasoning={"summary": "auto"})
    (item,) = response.output
    assert item.type == "reasoning"
    assert (response.status, item.status, response.output_text) == ("incomplete", "incomplete", "")
    assert item.content
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 6
    with engine.client() as http:
        streamed = check_responses(http.post("/v1/responses", json=fields | {"stream": True}).content)
    assert streamed["output"][0]["content"][0]["text"] == item.content[0].text
    again = client.responses.create(**fields | {"input": [*ASK, *response.output, *ASK]})
    assert again.usage is not None
    assert again.usage.input_tokens > response.usage.input_tokens
    off = client.responses.create(**fields, reasoning={"effort": "none"})
    assert [item.type for item in off.output] == ["message"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**fields, reasoning={"effort": "high"})
    assert caught.value.param == "reasoning.effort"


def test_thoughts_are_blocks_of_a_message(engine: EngineProcess) -> None:
    body: dict[str, Any] = {"messages": ASK, "max_tokens": 6, "temperature": 0}
    on, off = {"thinking": {"type": "enabled", "budget_tokens": 5}}, {"thinking": {"type": "disabled"}}
    with anthropic.Anthropic(base_url=engine.url, api_key=SECRET, max_retries=0) as client:
        message = client.messages.create(model="demo", max_tokens=6, messages=ASK, extra_body={"temperature": 0} | on)
        (block,) = message.content
        assert block.type == "thinking"
        assert block.thinking
        assert block.signature
        assert message.stop_reason == "max_tokens"
        turns: Any = [*ASK, {"role": "assistant", "content": message.content}, *ASK]
        assert client.messages.create(model="demo", max_tokens=1, messages=turns).usage.output_tokens == 1
        counted = [client.messages.count_tokens(model="demo", messages=ASK, **way).input_tokens for way in (on, off)]  # type: ignore[arg-type]
        assert counted[0] > counted[1]
    with engine.client() as http:
        streamed = check_messages(http.post("/v1/messages", json=body | on | {"stream": True}).content)
        plain = http.post("/v1/messages", json=body | off).json()
    assert streamed["content"][0]["thinking"] == block.thinking
    assert [block["type"] for block in plain["content"]] == ["text"]
