"""A real engine with a template that reasons and knows no tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

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
