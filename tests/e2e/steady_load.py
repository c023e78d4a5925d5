"""Streams on a gateway, one after the other, for as long as something else goes on."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from types import TracebackType
from typing import Self

import httpx

from tests.e2e.vllm_stage import Seen, stream

NUM_CLIENTS, NUM_TOKENS, PAUSE_S = 2, 24, 1.0  # with less of a pause two slow cores do little else


class SteadyLoad:
    """`num_clients` that stream an answer, wait a moment and stream the next. `seen` has all that were begun, once it is over."""

    def __init__(self, url: str, model: str, num_clients: int = NUM_CLIENTS) -> None:
        self.seen: list[Seen] = []
        self._url, self._model, self._num_clients = url, model, num_clients
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    @property
    def failed(self) -> list[Seen]:
        return [one for one in self.seen if one.status != 200 or one.failure or not one.is_done or one.errors]

    @property
    def answered(self) -> Counter[str]:
        """How many streams each engine gave."""
        return Counter(one.engine for one in self.seen)

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=120, verify=False) as client:
            await asyncio.gather(*(self._stream_on(client) for _ in range(self._num_clients)))

    async def _stream_on(self, client: httpx.AsyncClient) -> None:
        while not self._is_over.is_set():
            self.seen.append(await stream(client, self._url, NUM_TOKENS, self._model))
            await asyncio.sleep(PAUSE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
