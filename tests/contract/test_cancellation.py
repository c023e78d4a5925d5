"""A client that goes away frees what its request held."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.engines import MODEL, Running

SOON_S = 5.0
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


def wait_for(engine: Running, num_running: int) -> None:
    """Until so many requests run."""
    begin = time.monotonic()
    while (load := engine.load()) is None or load.num_running + load.num_waiting != num_running:
        assert time.monotonic() - begin < SOON_S, f"{load} after {SOON_S:g} s, not {num_running} requests"
        time.sleep(0.02)


def wait_for_none(engine: Running) -> None:
    """vLLM says how many requests run with each step: where the last one was cut there is no next step, unless somebody asks for it."""
    with engine.client() as client:
        begin = time.monotonic()
        while (load := engine.load()) is None or load.num_running + load.num_waiting:
            assert time.monotonic() - begin < FREED_S, f"{load} after {FREED_S:g} s"
            time.sleep(0.2)
            client.post("/v1/chat/completions", json=LONG | {"max_tokens": 1}).raise_for_status()


def test_a_stream(counted: Running) -> None:
    with (
        counted.client() as client,
        client.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as reply,
    ):
        lines = reply.iter_lines()
        while not next(lines).startswith("data:"):
            pass
        wait_for(counted, 1)
    wait_for_none(counted)


def test_an_answer_that_nobody_waits_for(counted: Running) -> None:
    with counted.client() as client, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.post, "/v1/chat/completions", json=LONG, timeout=0.6)
        wait_for(counted, 1)
        with pytest.raises(Exception, match="timed out"):
            asking.result()
    wait_for_none(counted)


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
