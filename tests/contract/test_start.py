"""What a ready engine is: facts that hold, an address behind a secret, endpoints that are what is listed."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from backends.base import ENDPOINTS
from tests.contract.engines import MODEL, Running

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 2}),
    "completions": ("/v1/completions", {"prompt": "hello", "max_tokens": 2}),
    "tokenize": ("/tokenize", {"prompt": "hello"}),
    "embeddings": ("/v1/embeddings", {"input": "hello"}),
    "responses": ("/v1/responses", {"input": "hello", "max_output_tokens": 16, "store": False}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 2}),
}
"""A request that each endpoint answers."""


def test_its_facts(engine: Running) -> None:
    facts = engine.facts
    assert facts.model == MODEL
    assert facts.description
    assert set(ENDPOINTS) & set(engine.capabilities)
    if facts.context_length is not None:
        assert facts.context_length >= 2048
    with engine.client() as client:
        assert client.get(engine.backend.ready_path).status_code == 200


def test_it_is_idle(engine: Running) -> None:
    load = engine.load()
    if load is not None:  # a remote does not say
        assert (load.num_running, load.num_waiting, load.adapters_running) == (0, 0, ())
        assert 0 <= load.kv_usage <= 1


def test_nobody_else_gets_in(engine: Running) -> None:
    with engine.client() as client:
        client.headers["authorization"] = "Bearer wrong"
        for path, body in ASKED.values():
            assert client.post(path, json={"model": MODEL, **body}).status_code == 401, path
        assert client.get("/v1/models").status_code == 401
        assert client.get("/metrics").status_code == 401
    with engine.openai(key="wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_it_answers_what_it_lists_and_nothing_else(engine: Running, endpoint: str) -> None:
    path, body = ASKED[endpoint]
    with engine.client() as client:
        reply = client.post(path, json={"model": MODEL, **body})
    if endpoint in engine.capabilities:
        assert reply.status_code == 200, reply.text
    else:
        assert reply.status_code in (400, 404, 501), reply.text
        assert reply.json()


def test_it_lists_its_model(engine: Running) -> None:
    with engine.openai() as client:
        listed = list(client.models.list())
    assert [entry.id for entry in listed] == [MODEL]
