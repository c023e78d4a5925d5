"""What an engine refuses, as the OpenAI SDK tells it: the right type, and the field at fault by name."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.engines import MODEL, Running

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def chats(engine: Running) -> None:
    engine.needs("chat")


def test_an_unknown_model(engine: Running) -> None:
    with engine.openai() as client, pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.chat.completions.create(model="gpt-9", messages=HELLO)


def refusal(engine: Running, **options: Any) -> openai.BadRequestError:
    with engine.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, **options)
    return caught.value


def test_a_bad_budget(engine: Running) -> None:
    assert "max_tokens" in str(refusal(engine, max_tokens=-3))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": -0.5}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 0}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"extra_body": {"response_format": {"type": "xml"}}}, "response_format"),
        ({"extra_body": {"tools": [{"type": "function"}]}}, "tools"),
    ],
)
def test_a_bad_field_is_named(model: Running, options: dict[str, Any], field: str) -> None:
    error = refusal(model, **options)
    assert field in f"{error.param} {error.message}"


def test_a_prompt_that_is_too_long(model: Running) -> None:
    with model.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 5000}])
    assert str(model.facts.context_length) in caught.value.message


def test_a_body_that_is_no_json(engine: Running) -> None:
    with engine.client() as client:
        headers = {"content-type": "application/json"}
        reply = client.post("/v1/chat/completions", content=b'{"model": ', headers=headers)
        assert reply.status_code == 400
        assert reply.json()["error"]["message"]
        assert client.post("/v1/nowhere", json={}).status_code == 404


def test_after_all_that_it_still_answers(engine: Running) -> None:
    with engine.openai() as client:
        assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2).choices
