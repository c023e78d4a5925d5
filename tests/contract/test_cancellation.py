"""A client that goes away frees what its request held."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.contract.engines import MODEL, Running

FREED_S = 2.5
"""Less than the long answer takes on vLLM: one that went on would be seen."""
NUM_TRIES = 3
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
    def begin_and_leave() -> None:
        with (
            counted.client() as client,
            client.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as reply,
        ):
            chunks = (line for line in reply.iter_lines() if line.startswith("data:"))
            assert "choices" in next(chunks)

    assert_is_cut(counted, begin_and_leave)


def test_an_answer_that_nobody_waits_for(counted: Running) -> None:
    def ask_in_a_hurry() -> None:
        with counted.client() as client, suppress(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=LONG, timeout=0.3)

    assert_is_cut(counted, ask_in_a_hurry)


def assert_is_cut(engine: Running, ask: Callable[[], None]) -> None:
    """Whoever asks leaves early; the answer was cut if the engine is free and has made fewer tokens. An engine that goes on makes all of
    them each time; one that is faster than a busy test does not."""
    made = []
    while len(made) < NUM_TRIES:
        before = engine.load()
        ask()
        wait_for_none(engine)
        after = engine.load()
        assert before is not None
        assert after is not None
        made.append(after.num_generated_tokens - before.num_generated_tokens)
        if not engine.has_model or 0 < made[-1] < LONG["max_tokens"]:
            return
    raise AssertionError(f"it went on to the end: {made} tokens")


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
