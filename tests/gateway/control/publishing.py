"""A publisher with all its parts, but for engines: the core is one in memory, the children are real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from backends.adapter.pack import pack
from backends.adapter.store import Store
from backends.artifacts import source_digest
from backends.base import Identity, Places
from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR
from backends.llamacpp.convert import ensure_gguf
from backends.process import Launcher
from gateway.config import Model, Pool
from gateway.control.basefacts import Bases
from gateway.control.ingestion import Ingestion
from gateway.control.publish import Order, Publisher
from gateway.control.spool import Spool
from gateway.home import Home
from tests.gateway.control.fake_adapters import FakeAdapters

HOST = ADAPTERS_DIR / "host"
ORDER = Order("support", "", "ann from 127.0.0.1")


@dataclass
class Rig:
    home: Home
    core: FakeAdapters
    publisher: Publisher
    ingestion: Ingestion
    spool: Spool
    bases: Bases

    async def publish(self, folder: Path = HOST, order: Order = ORDER) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """All events before the last, and the last. Raises GatewayError."""
        job = await self.publisher.upload(order, archive(folder), None)
        *before, last = [event async for event in job.follow()]
        if job.error is not None:
            raise job.error
        return before, last

    def left_behind(self) -> list[str]:
        """Besides versions that are whole."""
        spooled = [path.name for path in (self.home.run / "publish").glob("*")]
        store = self.home.root / "adapters"
        return spooled + [path.name for path in store.glob("*") if len(path.name) != 64]


async def archive(folder: Path) -> AsyncIterator[bytes]:
    for chunk in pack(folder).chunks():
        yield chunk


def bases_of(*models: Model, able: Sequence[str] = ("llamacpp", "vllm")) -> Bases:
    """As the gateway has them; of a backend only whether it serves adapters is asked."""
    pools: list[Any] = [
        (model, pool, SimpleNamespace(adapters=object() if pool.engine in able else None, num_adapter_slots=4))
        for model in models
        for pool in model.pools
    ]
    return Bases(pools)


def demo_gguf(home: Home) -> Path:
    return ensure_gguf(TARGET_DIR, home.models)


@asynccontextmanager
async def rig(root: Path, core: FakeAdapters | None = None, max_bytes: int = 100_000_000) -> AsyncIterator[Rig]:
    """Its base is a bare GGUF, of which no reference can be computed: that takes minutes."""
    home = Home(root)
    home.ensure()
    bases = bases_of(Model("demo", (Pool("llamacpp", model=str(demo_gguf(Home.from_env()))),)))
    spool = Spool(home.run / "publish", max_bytes)
    launcher = await Launcher.start()
    ingestion = Ingestion(Store(root / "adapters"), bases, Places(home.models, home.envs), launcher, spool)
    adapters = core or FakeAdapters()
    identity = Identity(source_digest(TARGET_DIR, Home.from_env().models), is_source=True)
    publisher = Publisher(adapters, bases, lambda _: [identity], ingestion, spool)
    publisher.start()
    try:
        yield Rig(home, adapters, publisher, ingestion, spool, bases)
    finally:
        await publisher.close()
        await launcher.close()
