"""How many requests an engine says it holds, read from its metrics page while a load runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.client import Client
from benchmarks.target import Target

INTERVAL_S = 0.1
TIMEOUT_S = 5.0
_SAMPLE = re.compile(rb"^([\w:]+)(?:\{[^}]*\})? ([0-9.eE+-]+)(?: \d+)?$", re.MULTILINE)
_RUNNING = (b"num_requests_running", b"engine_requests_running", b"requests_processing")
_WAITING = (b"num_requests_waiting", b"engine_requests_waiting", b"requests_deferred")
"""Ends of names: of vLLM and of forgegate's llama.cpp engine, of forgegate's gateway (all its engines), of llama-server."""
_GATEWAYS_OWN = (b"forgegate_requests_running", b"forgegate_adapter_waiting", b"forgegate_engine_waiting")
"""Counted by the gateway itself, as of now; what its page says of engines was read off them up to two seconds ago."""

Gauges = list[tuple[float, float]]
"""(moment, running + waiting), by the client's clock."""


def held(page: bytes) -> float | None:
    """Running and waiting requests of a metrics page, over all its labels; None where it has no such gauge."""
    found = [(name, float(value)) for name, value in _SAMPLE.findall(page)]
    own = [value for name, value in found if name in _GATEWAYS_OWN]
    if own:
        return sum(own)
    running = [value for name, value in found if name.endswith(_RUNNING)]
    waiting = [value for name, value in found if name.endswith(_WAITING)]
    return sum(running) + sum(waiting) if running else None


@asynccontextmanager
async def watched(target: Target | None) -> AsyncIterator[Gauges]:
    """The list that fills while the body runs; empty without a target, and where it has no such page."""
    gauges: Gauges = []
    if target is None:
        yield gauges
        return
    client = Client(target, timeout_s=TIMEOUT_S)
    task = asyncio.create_task(_sample(client, gauges))
    try:
        yield gauges
    finally:
        task.cancel()
        await asyncio.wait({task})
        client.close()


async def _sample(client: Client, gauges: Gauges) -> None:
    while True:
        exchange = await client.get("/metrics")
        if exchange.failure is None and exchange.status == 200 and (num := held(exchange.body)) is not None:
            gauges.append((client.clock(), num))
        await asyncio.sleep(INTERVAL_S)
