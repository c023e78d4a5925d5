"""A client that goes away frees what its request held."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.contract.engines import MODEL, Running

FREED_S = 2.5
"""Less than the long answer takes on vLLM: one that went on would be seen."""
LONG: dict[str, Any] = {
    "model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1500, "ignore_eos": True,
    "temperature": 0,
}  # fmt: skip


@pytest.fixture
def counted(engine: Running) -> Running:
    engine.needs("chat")
    if engine.load() is None:
        pytest.skip(f"{engine.name} does not say how busy it is")
    return engine


def wait_for_none(engine: Running) -> None:
    """vLLM says how many requests run with each step: where the last one was cut there is no next step, unless somebody asks for it."""
    with engine.client() as client:
        begin = time.monotonic()
        while (load := engine.load()) is None or load.num_running + load.num_waiting:
            assert time.monotonic() - begin < FREED_S, f"{load} after {FREED_S:g} s"
            time.sleep(0.2)
            client.post("/v1/chat/completions", json=LONG | {"max_tokens": 1}).raise_for_status()


def test_a_stream(counted: Running) -> None:
    before = counted.load()
    with (
        counted.client() as client,
        client.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as reply,
    ):
        chunks = (line for line in reply.iter_lines() if line.startswith("data:"))
        assert "choices" in next(chunks)
    wait_for_none(counted)
    after = counted.load()
    assert before is not None
    assert after is not None
    # Free it would be once it had said all, too. What is made up is not counted.
    assert not counted.has_model or 0 < after.num_generated_tokens - before.num_generated_tokens < LONG["max_tokens"]


def test_an_answer_that_nobody_waits_for(counted: Running) -> None:
    with counted.client() as client, pytest.raises(httpx.ReadTimeout):
        ask_in_a_hurry(client)
    wait_for_none(counted)


def ask_in_a_hurry(client: httpx.Client) -> None:
    reply = client.post("/v1/chat/completions", json=LONG, timeout=0.3)
    pytest.fail(f"it was answered at once: {reply.status_code} {reply.text[-300:]}")


def test_the_others_go_on(counted: Running) -> None:
    short = LONG | {"max_tokens": 40}
    with counted.client() as client, counted.client() as other:
        expected = client.post("/v1/chat/completions", json=short).json()["choices"][0]
        with other.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as leaving:
            next(leaving.iter_lines())
            with client.stream("POST", "/v1/chat/completions", json=short | {"stream": True}) as staying:
                lines = staying.iter_lines()
                next(lines)
                leaving.close()
                rest = "\n".join(lines)
    assert rest.rstrip().endswith("data: [DONE]")
    assert f'"finish_reason":"{expected["finish_reason"]}"' in rest.replace(": ", ":")
    wait_for_none(counted)
