"""Text completions: prompts as text and as token ids, echo and scores."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.engines import MODEL, Running


@pytest.fixture(autouse=True)
def completes(engine: Running) -> None:
    engine.needs("completions")


def complete(engine: Running, prompt: Any, **options: Any) -> openai.types.Completion:
    with engine.openai() as client:
        answer = client.completions.create(model=MODEL, prompt=prompt, **{"temperature": 0, **options})
    assert isinstance(answer, openai.types.Completion)
    return answer


def test_a_completion_streamed_and_not(engine: Running) -> None:
    whole = complete(engine, "The capital of France", max_tokens=8, extra_body={"ignore_eos": True})
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    with engine.openai() as client:
        chunks = list(
            client.completions.create(
                model=MODEL, prompt="The capital of France", max_tokens=8, temperature=0, stream=True,
                stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
            )
        )  # fmt: skip
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    if engine.has_model:
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text


def test_prompts_are_echoed_and_scored(model: Running) -> None:
    answer = complete(
        model, ["hello world", "KV"], max_tokens=3, echo=True, logprobs=2, extra_body={"ignore_eos": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    first = answer.choices[0]
    assert first.text.startswith("hello world")
    assert first.logprobs is not None
    values = first.logprobs.token_logprobs
    assert values is not None
    assert values[0] is None
    assert all(value is not None and value <= 0 for value in values[1:])


def test_token_ids_are_a_prompt(model: Running) -> None:
    model.needs("tokenize")
    with model.client() as client:
        told = client.post("/tokenize", json={"model": MODEL, "prompt": "hello world"}).json()
        back = client.post("/detokenize", json={"model": MODEL, "tokens": told["tokens"]}).json()
    assert back["prompt"].endswith("hello world")
    assert told["count"] == len(told["tokens"])
    by_ids = complete(model, told["tokens"], max_tokens=6)
    assert by_ids.choices[0].text == complete(model, "hello world", max_tokens=6).choices[0].text
    assert by_ids.usage is not None
    assert by_ids.usage.prompt_tokens == told["count"]


def test_chat_is_tokenized_as_it_is_asked(model: Running) -> None:
    model.needs("tokenize", "chat")
    messages: list[Any] = [{"role": "user", "content": "안녕하세요! What is a KV cache?"}]
    with model.client() as client:
        told = client.post("/tokenize", json={"model": MODEL, "messages": messages}).json()
    with model.openai() as client:
        answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1)
    assert answer.usage is not None
    assert told["count"] == answer.usage.prompt_tokens
