"""The configurations of a section: one gateway for each, all started together, so that starts of minutes pass side by side.

One gateway starts engines of vLLM one after the other; several gateways do not know of each other.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import until
from benchmarks.chaos_gateway import GatewayError
from benchmarks.target import Target

MODEL = "model"
"""Under which every engine serves."""
ENGINE = f"{MODEL}-0"

_NO_NAME = re.compile(r"[^\w.]+")
"""What a folder's name is better without."""

Fleet = Mapping[str, AdapterGateway]
"""By configuration."""


@asynccontextmanager
async def started(folder: Path, pools: Mapping[str, Mapping[str, Any]], ready_s: float) -> AsyncIterator[Fleet]:
    """All are up, and all are stopped in the end. Raises ChildError, GatewayError."""
    gateways = {name: _gateway(folder / _NO_NAME.sub("-", name), pool, ready_s) for name, pool in pools.items()}
    with ExitStack() as stack:
        for gateway in gateways.values():
            stack.callback(gateway.start().stop)
        await asyncio.gather(*(_wait(name, gateway) for name, gateway in gateways.items()))
        yield gateways


def _gateway(folder: Path, pool: Mapping[str, Any], ready_s: float) -> AdapterGateway:
    folder.mkdir(parents=True, exist_ok=True)
    return AdapterGateway(folder, {MODEL: pool}, ready_s, num_workers=1)


async def _wait(name: str, gateway: AdapterGateway) -> None:
    await gateway.wait_ready()
    is_up, when = await until(gateway.is_up, gateway.ready_s)
    if not is_up:
        raise GatewayError(f"configuration {name} is not up {when}\n{gateway.child.tail()}")


async def direct(fleet: Fleet) -> dict[str, Target]:
    """Where each engine answers itself."""
    return {name: await gateway.direct(ENGINE) for name, gateway in fleet.items()}


async def descriptions(fleet: Fleet) -> dict[str, str]:
    """What each engine says it is."""
    return {name: str((await gateway.engines())[0]["description"]) for name, gateway in fleet.items()}
