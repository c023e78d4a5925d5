"""Engines under contract, each started, addressed and read by its backend alone, as the control process does it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anthropic
import httpx
import openai
import pytest

from backends.base import Backend, Call, Facts, Fetch, Load
from backends.lifecycle import EngineLife
from backends.logring import LogRing
from backends.probe import Prober
from backends.process import Launcher
from backends.status import State, Status

MODEL = "demo"
PROBE_S = 10.0
START_S = 300.0
T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own: engines are followed and their output is read while a test blocks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engines", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass(frozen=True)
class Running:
    """A ready engine."""

    name: str
    backend: Backend
    status: Status
    log: LogRing
    has_model: bool
    """Its answers are a model's; a fake makes them up, so that what depends on a model is not asked of it."""
    loop: Loop
    prober: Prober

    @property
    def facts(self) -> Facts:
        assert self.status.facts is not None
        return self.status.facts

    @property
    def capabilities(self) -> tuple[str, ...]:
        """As the fleet takes them: what the engine says, else what its kind can at best."""
        return self.facts.capabilities or self.backend.capabilities

    @property
    def speculates(self) -> bool:
        """Speculation is what options are refused for."""
        return bool(self.facts.refused_options)

    @property
    def url(self) -> str:
        return self.status.address.url

    @property
    def fetch(self) -> Fetch:
        """For work on its loop."""
        return self.prober.fetch(self.status.address, self.status.secret, PROBE_S)

    @property
    def call(self) -> Call:
        """For work on its loop."""
        return self.prober.call(self.status.address, self.status.secret)

    def needs(self, *capabilities: str) -> None:
        """Skips the test where it does not list them."""
        lacking = [name for name in capabilities if name not in self.capabilities]
        if lacking:
            pytest.skip(f"{self.name} does not list {', '.join(lacking)}")

    def load(self) -> Load | None:
        return self.loop.run(self.backend.load(self.fetch))

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.status.secret}"}
        # Loading certificates takes longer than many an answer of the demo model.
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False)

    def openai(self, key: str = "") -> openai.OpenAI:
        http = httpx.Client(verify=False)
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.status.secret, max_retries=0, timeout=60, http_client=http
        )

    def anthropic(self) -> anthropic.Anthropic:
        """With the bearer token: that is how the gateway asks engines."""
        return anthropic.Anthropic(
            base_url=self.url, auth_token=self.status.secret, api_key=None, max_retries=0, timeout=60
        )


@contextmanager
def running(name: str, backend: Backend, *, has_model: bool = True) -> Iterator[Running]:
    """The engine, from its start until its process group is gone."""
    loop, log, stack = Loop(), LogRing(num_lines=2000), AsyncExitStack()
    try:
        status, prober = loop.run(_start(backend, log, stack), START_S)
        yield Running(name, backend, status, log, has_model, loop, prober)
    finally:
        loop.run(stack.aclose())
        loop.close()


async def _start(backend: Backend, log: LogRing, stack: AsyncExitStack) -> tuple[Status, Prober]:
    async def announce(_: Status) -> None:
        pass

    prober = Prober()
    stack.push_async_callback(prober.close)
    launcher = await Launcher.start()
    stack.push_async_callback(launcher.close)
    life = EngineLife(backend, launcher, prober, log, announce)
    task = asyncio.create_task(life.run(), name=f"life of {backend.title}")

    async def end() -> None:
        life.close(grace_s=5.0)
        await task

    stack.push_async_callback(end)
    life.start()
    await life.settled()
    said = "\n".join(log.tail(60))
    assert life.status.state is State.READY, f"{backend.title}: {life.status.detail}\n{said}"
    return life.status, prober
