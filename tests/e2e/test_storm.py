"""Many streams through the whole product on the real engine: cut by clients, and by the engine's death."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.processes import Served, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]

NUM_STREAMS = 200


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "forgegate.yaml"
    path.write_text(
        "server: {port: 0, admin: {port: 0}}\n"
        "models:\n  - name: demo\n    pools:\n"
        "      - {engine: llamacpp, model: demo, options: {n_ctx: 4096, n_seq_max: 16, max_waiting: 512}}\n",
        encoding="utf-8",
    )
    return path


@dataclass
class Stream:
    """What one client saw."""

    events: list[dict[str, object]] = field(default_factory=list)
    is_done: bool = False
    was_cut: bool = False
    failure: str = ""
    status: int = 0

    @property
    def errors(self) -> list[dict[str, object]]:
        return [event for event in self.events if "error" in event]

    @property
    def is_finished(self) -> bool:
        """A finish reason and `[DONE]`."""
        reasons = [c.get("finish_reason") for e in self.events for c in e.get("choices", [])]  # type: ignore[attr-defined]
        return self.is_done and bool(reasons and reasons[-1])


async def run_stream(client: httpx.AsyncClient, number: int, max_tokens: int, cut_after: int | None) -> Stream:
    body = {
        "model": "demo", "stream": True, "max_tokens": max_tokens, "ignore_eos": True, "seed": number,
        "messages": [{"role": "user", "content": f"Request {number}: tell me about the KV cache and {number * 7}."}],
    }  # fmt: skip
    seen = Stream()
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            seen.status = reply.status_code
            if reply.status_code != 200:
                seen.events.append(json.loads(await reply.aread()))
                return seen
            if cut_after == 0:
                seen.was_cut = True
                return seen
            async for line in reply.aiter_lines():
                if line == "data: [DONE]":
                    seen.is_done = True
                elif line.startswith("data: "):
                    seen.events.append(json.loads(line[6:]))
                if cut_after is not None and len(seen.events) >= cut_after:
                    seen.was_cut = True
                    return seen
    except httpx.TransportError as error:
        seen.failure = repr(error)
    return seen


def open_client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(110, pool=None), limits=limits)


def engine_is_at_rest(served: Served) -> bool:
    load = served.engine()["load"]
    return bool(load) and load["num_running"] == load["num_waiting"] == load["kv_usage"] == 0


def engine_log(served: Served) -> str:
    return "\n".join(path.read_text() for path in (served.home / "logs").glob("demo-0*.log"))


@pytest.mark.timeout(180)
async def test_half_of_200_streams_are_cut_by_their_clients(tmp_path: Path, config: Path) -> None:
    rng = random.Random(20)
    with Served(tmp_path / "home", "--config", str(config)) as served:
        served.wait_ready()
        async with open_client(served.url) as client:
            plans = [rng.randrange(0, 40) if number % 2 else None for number in range(NUM_STREAMS)]
            streams = await asyncio.gather(
                *(run_stream(client, number, 48, cut_after) for number, cut_after in enumerate(plans))
            )
        for stream, cut_after in zip(streams, plans, strict=True):
            assert not stream.failure
            assert stream.status == 200
            assert stream.was_cut == (cut_after is not None)
            assert stream.was_cut or stream.is_finished
            assert not stream.errors
        eventually(lambda: engine_is_at_rest(served), 20)
        log = engine_log(served)
        assert "Traceback" not in log
        assert "error" not in log.lower()
        assert served.engine()["num_restarts"] == 0


@pytest.mark.timeout(180)
async def test_the_engine_is_killed_in_the_middle(tmp_path: Path, config: Path) -> None:
    with Served(tmp_path / "home", "--config", str(config)) as served:
        served.wait_ready()
        async with open_client(served.url) as client:
            tasks = [asyncio.create_task(run_stream(client, number, 400, None)) for number in range(64)]

            async def some_run() -> None:
                while not (served.engine()["load"] or {}).get("num_running"):
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)

            await asyncio.wait_for(some_run(), 30)
            os.kill(served.engine()["pid"], signal.SIGKILL)
            streams = await asyncio.gather(*tasks)
        started = [stream for stream in streams if stream.status == 200]
        assert started, "the engine died before anything started"
        for stream in streams:
            assert not stream.failure, "a stream must end in an event, not in a broken connection"
            assert len(stream.errors) == (0 if stream.is_finished else 1)
            if stream.errors:
                assert stream.errors == stream.events[-1:], "nothing follows the error"
                assert stream.status in (200, 502, 503)
        assert any(stream.errors for stream in started)
        served.wait_for("engine", 30, state="ready")
        async with open_client(served.url) as client:
            question = {"model": "demo", "temperature": 0, "messages": [{"role": "user", "content": "What is 2 + 3?"}]}
            reply = await client.post("/v1/chat/completions", json=question)
        assert reply.status_code == 200
        assert reply.json()["choices"][0]["message"]["content"] == "2 + 3 = 5"
        eventually(lambda: engine_is_at_rest(served), 20)
