"""The official OpenAI SDK as the client of a real engine."""

from __future__ import annotations

import math
from collections.abc import Iterator

import openai
import pytest

from tests.engine_process import SECRET, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


HELLO = [{"role": "user", "content": "안녕하세요! What is KV cache? 🙂"}]


def chat(client: openai.OpenAI, **options: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="demo", messages=HELLO, **options)  # type: ignore[call-overload, no-any-return]


def test_chat_and_usage(client: openai.OpenAI) -> None:
    answer = chat(client, max_tokens=12, temperature=0, extra_body={"ignore_eos": True})
    assert answer.object == "chat.completion"
    assert answer.model == "demo"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = chat(client, max_tokens=40, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=40, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_characters_are_never_split(client: openai.OpenAI) -> None:
    """Random text of a byte-fallback vocabulary: pieces of characters are common."""
    for seed in range(8):
        stream = client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=60, temperature=2.0, seed=seed, stream=True, logprobs=True
        )
        pieces, data = [], b""
        for chunk in stream:
            pieces.append(chunk.choices[0].delta.content or "")
            if chunk.choices[0].logprobs:
                data += b"".join(bytes(entry.bytes or []) for entry in chunk.choices[0].logprobs.content or [])
        assert "".join(pieces) == data.decode("utf-8", "replace")
        for piece in pieces:
            piece.encode("utf-8")  # lone surrogates would raise


def test_seed_reproduces(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str | None:
        return chat(client, max_tokens=4, temperature=1.5, seed=seed).choices[0].message.content

    answer(0)  # the prompt is in the cache from now on: both times the same is computed
    assert answer(7) == answer(7)
    assert len({answer(seed) for seed in range(6)}) > 1


def test_logprobs(client: openai.OpenAI) -> None:
    answer = chat(client, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3, extra_body={"ignore_eos": True})
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 5
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob <= entry.top_logprobs[0].logprob <= 0
        assert [top.logprob for top in entry.top_logprobs] == sorted(
            (t.logprob for t in entry.top_logprobs), reverse=True
        )
    text = b"".join(bytes(entry.bytes or []) for entry in logprobs.content).decode("utf-8", "replace")
    assert text == answer.choices[0].message.content


def test_stop_strings(client: openai.OpenAI) -> None:
    options = {"max_tokens": 40, "temperature": 0, "extra_body": {"ignore_eos": True}}
    full = chat(client, **options).choices[0].message.content or ""
    stop = full[len(full) // 2 : len(full) // 2 + 3]
    cut = chat(client, stop=[stop, "never occurs"], **options)
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == full[: full.index(stop)]
    streamed = client.chat.completions.create(model="demo", messages=HELLO, stop=stop, stream=True, **options)  # type: ignore[call-overload]
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == full[: full.index(stop)]


def test_completions_echo_and_lists(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="demo", prompt=["hello world", "KV"], max_tokens=3, temperature=0, echo=True, logprobs=2,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    assert [choice.index for choice in answer.choices] == [0, 1]
    first = answer.choices[0]
    assert first.text.startswith("hello world")
    assert first.logprobs is not None
    assert first.logprobs.token_logprobs is not None
    assert first.logprobs.tokens is not None
    assert first.logprobs.token_logprobs[0] is None
    assert all(value is not None and value <= 0 for value in first.logprobs.token_logprobs[1:])
    assert "".join(first.logprobs.tokens) == first.text
    scored = client.completions.create(model="demo", prompt="hello world", max_tokens=0, echo=True, logprobs=0)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    expected = first.logprobs.token_logprobs[1 : len(logprobs.token_logprobs)]
    for got, wanted in zip(logprobs.token_logprobs[1:], expected, strict=True):
        assert math.isclose(got or 0, wanted or 0, abs_tol=0.02)
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0


def test_token_ids_as_prompt(client: openai.OpenAI, engine: EngineProcess) -> None:
    with engine.client() as http:
        tokens = http.post("/tokenize", json={"prompt": "hello world"}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "hello world"}
    by_ids = client.completions.create(model="demo", prompt=tokens, max_tokens=6, temperature=0)
    by_text = client.completions.create(model="demo", prompt="hello world", max_tokens=6, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    model = client.models.list().data[0]
    assert model.id == "demo"
    assert model.max_model_len == 2048  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": -0.5}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"extra_body": {"max_tokes": 3}}, "max_tokes"),
        ({"extra_body": {"tools": [{"type": "function"}]}}, "tools[0].function"),
        ({"extra_body": {"tools": [{"type": "web_search"}]}}, "tools[0].type"),
        ({"extra_body": {"tools": [{"type": "function", "function": {"name": "a b"}}]}}, "tools[0].function.name"),
        ({"extra_body": {"tool_choice": "required"}}, "tool_choice"),
        ({"extra_body": {"response_format": {"type": "xml"}}}, "response_format.type"),
        ({"extra_body": {"response_format": {"type": "json_schema"}}}, "response_format.json_schema"),
        ({"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}, "chat_template_kwargs.enable_thinking"),
        ({"extra_body": {"reasoning_effort": "low"}}, "reasoning_effort"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"extra_body": {"stop_token_ids": [99999]}}, "stop_token_ids"),
    ],
)
def test_bad_requests_name_the_field(client: openai.OpenAI, options: dict[str, object], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    assert caught.value.param == param
    assert param in caught.value.message or caught.value.code == "context_length_exceeded"


def test_too_long_a_prompt_names_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="demo", prompt="word " * 5000, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"
    assert "2048" in caught.value.message
    assert "5000" in caught.value.message or "10000" in caught.value.message or "tokens" in caught.value.message


def test_errors_have_the_sdks_types(engine: EngineProcess) -> None:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            chat(client)
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=SECRET, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-9", messages=HELLO)  # type: ignore[arg-type]


def test_harmless_fields_are_accepted(client: openai.OpenAI) -> None:
    answer = chat(client, max_tokens=1, user="me", store=False, metadata={"a": "b"})
    assert answer.choices[0].finish_reason in ("length", "stop")


def test_roles_and_content_parts(client: openai.OpenAI) -> None:
    parts = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    assert client.chat.completions.create(model="demo", messages=parts, max_tokens=2).choices  # type: ignore[arg-type]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with pytest.raises(openai.BadRequestError, match="text only"):
        client.chat.completions.create(model="demo", messages=image)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="unknown role"):
        client.chat.completions.create(model="demo", messages=[{"role": "boss", "content": "hi"}])  # type: ignore[arg-type]
