import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import orjson
import pytest

from benchmarks import eventloop, transcript
from benchmarks.client import Client, Target
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.record import Record
from benchmarks.workload import Request

FAST = Behaviour(ttft_ms=2, itl_ms=1, tokens=10)


@pytest.fixture
async def engine() -> AsyncIterator[MockEngine]:
    async with MockEngine(FAST) as running:
        yield running


@pytest.fixture
async def client(engine: MockEngine) -> AsyncIterator[Client]:
    client = Client(Target.from_url(engine.url), timeout_s=5)
    yield client
    client.close()
    await asyncio.sleep(0.01)


@pytest.fixture
def ask(client: Client) -> Callable[..., Awaitable[Record]]:
    """One streamed chat request with body fields; its record."""

    async def send(max_tokens: int = 10, **fields: object) -> Record:
        body = {
            "model": "mock",
            "messages": [{"role": "user", "content": "one two"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": max_tokens,
            **fields,
        }
        request = Request(0, orjson.dumps(body), max_tokens, False)
        intended_s = client.clock()
        return transcript.read(await client.post("/v1/chat/completions", request.body), request, intended_s)

    return send


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A mock that answers at once."""
    with serving(MockEngine(Behaviour(ttft_ms=1, itl_ms=1, tokens=6), models=("alpha", "beta"))) as url:
        yield url


@contextmanager
def serving(engine: MockEngine) -> Iterator[str]:
    """In a thread of its own, since the command runs an event loop itself; its URL."""
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with engine:
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=eventloop.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield engine.url
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
