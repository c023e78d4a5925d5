"""`POST /admin/v1/engines/{id}/tune`: the measurement as a stream of JSON lines. Whoever leaves it ends the measurement."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.control.publish import Event
from gateway.control.tuneload import NUM_TOKENS, Workload
from gateway.control.tuning import Order, Tuning

BEAT_S = 5.0
"""A client hears at least this often."""
MAX_TOKENS = 4096
MAX_PROMPTS = 1000
MAX_PASSES = 10


@dataclass(frozen=True, slots=True)
class TuneBody:
    """All of it may be left out."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    streams: tuple[int, ...] = ()
    """Batch sizes to measure; none: 1, 2, 4 and 8."""
    depths: tuple[int, ...] = ()
    """Draft tokens of one step to try; none: the configured depth, half of it, and 1."""
    prompts: tuple[str, ...] = ()
    """Texts to continue; none: those that come with forgegate."""
    num_tokens: int = NUM_TOKENS
    """That each request generates."""
    passes: int = 1
    """How often everything is measured; the best counts."""
    force: bool = False
    """Also where the model has no other engine that is ready."""


class TuneApi:
    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning

    async def tune(self, engine_id: str, body: TuneBody = TuneBody()) -> StreamingResponse:
        """Measure where speculation pays on one engine, which takes no traffic meanwhile; it starts again with the result."""
        _check("num_tokens", body.num_tokens, MAX_TOKENS)
        _check("passes", body.passes, MAX_PASSES)
        if len(body.prompts) > MAX_PROMPTS or not all(body.prompts):
            raise errors.BadRequest(f"prompts: at most {MAX_PROMPTS}, none of them empty", param="prompts")
        workload = Workload(body.prompts or Workload().prompts, body.num_tokens)
        order = Order(engine_id, body.streams, body.depths, workload, body.passes, body.force)
        events: asyncio.Queue[Event] = asyncio.Queue()
        return _Following(_lines(events), self._tuning.begin(order, events.put_nowait))


class _Following(StreamingResponse):
    """Ends the job when its client goes away."""

    def __init__(self, lines: AsyncIterator[bytes], job: asyncio.Task[None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancel()


async def _lines(events: asyncio.Queue[Event]) -> AsyncIterator[bytes]:
    """Until the last event; the one before is repeated while there is no news."""
    event: Event = {"event": "progress", "text": "begun"}
    while event["event"] == "progress":
        try:
            async with asyncio.timeout(BEAT_S):
                event = await events.get()
        except TimeoutError:
            pass
        yield json.dumps(event).encode() + b"\n"


def _check(name: str, number: int, largest: int) -> None:
    if not 1 <= number <= largest:
        raise errors.BadRequest(f"{name}: must be 1 to {largest}, got {number}", param=name)


def add_tune_routes(app: FastAPI, api: TuneApi, dependencies: list[Any]) -> None:
    app.add_api_route(
        "/admin/v1/engines/{engine_id:path}/tune", api.tune, methods=["POST"], dependencies=dependencies,
        response_class=StreamingResponse,
    )  # fmt: skip
