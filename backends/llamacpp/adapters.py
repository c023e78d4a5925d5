"""The adapters that an engine holds, by name. Lives on the event loop, which alone changes it.

    absent --load--> loading --> resident --unload--> leaving --> absent

Everything that waits for the engine's thread happens once per name, however many ask: whoever asks for a name that is
loading waits for that loading. A name that leaves takes no new requests; it is gone once its last request has ended.
Places are counted from the first moment of loading to the last of leaving.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backends.llamacpp.adapter_file import AdapterFile, Requirements, inspect
from backends.llamacpp.binding.adapter import Adapter


class AdapterMissing(Exception):
    """No adapter of that name is loaded, or it is leaving."""


class NameTaken(Exception):
    """The name belongs to another file."""


class NoSlot(Exception):
    """As many adapters as there is room for are loaded."""


@dataclass(slots=True, eq=False)
class LoadedAdapter:
    """Weights under a name; sequences and cached prefixes refer to this object, so that a name loaded again is another adapter."""

    name: str
    file: AdapterFile
    weights: Adapter
    created: int = field(default_factory=lambda: int(time.time()))


class AdapterEngine(Protocol):
    """What the thread that owns the context does for this table. Futures fail with AdapterError or EngineClosed."""

    def load_adapter(self, name: str, file: AdapterFile) -> Future[LoadedAdapter]: ...

    def unload_adapter(self, adapter: LoadedAdapter) -> Future[None]:
        """Done when no sequence uses it any more and it is freed."""
        ...


class AdapterTable:
    """Names and places."""

    def __init__(
        self,
        engine: AdapterEngine,
        num_slots: int,
        required: Requirements,
        inspect_file: Callable[[Path, Requirements], AdapterFile] = inspect,
    ) -> None:
        self.num_slots = num_slots
        self._engine = engine
        self._inspect = inspect_file
        self._required = required
        self._resident: dict[str, LoadedAdapter] = {}
        self._loading: dict[str, tuple[Path, asyncio.Task[LoadedAdapter]]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    @property
    def resident(self) -> Iterable[LoadedAdapter]:
        """Those that take requests, oldest first."""
        return tuple(self._resident.values())

    def find(self, name: str) -> LoadedAdapter | None:
        return self._resident.get(name)

    def check(self, adapter: LoadedAdapter | None) -> None:
        """Raises AdapterMissing where a request found an adapter that has left since."""
        if adapter is not None and self._resident.get(adapter.name) is not adapter:
            raise AdapterMissing(f"the adapter {adapter.name!r} has been unloaded")

    async def load(self, name: str, path: Path) -> LoadedAdapter:
        """Load `path` under `name`; the same again changes nothing. Raises AdapterError, NameTaken, NoSlot, EngineClosed."""
        while name in self._leaving:
            await asyncio.wait([self._leaving[name]])
        held = self._resident.get(name)
        if held is not None:
            _check_same(name, held.file.path, path)
            return held
        if name not in self._loading:
            self._check_slots()
            task = asyncio.create_task(self._load(name, path))
            # Whoever asked may have gone away when it fails.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._loading[name] = (path, task)
        loading, task = self._loading[name]
        _check_same(name, loading, path)
        # One client that goes away does not end what others wait for.
        return await asyncio.shield(task)

    async def unload(self, name: str) -> None:
        """Refuse new requests for `name` from now on, and free it when its last one has ended. Raises AdapterMissing, EngineClosed."""
        if name in self._loading:
            await asyncio.wait([self._loading[name][1]])
        adapter = self._resident.pop(name, None)
        if adapter is not None:
            task = asyncio.create_task(self._unload(adapter))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._leaving[name] = task
        if name not in self._leaving:
            raise AdapterMissing(f"the adapter {name!r} cannot be found")
        await asyncio.shield(self._leaving[name])

    async def _load(self, name: str, path: Path) -> LoadedAdapter:
        try:
            file = await asyncio.to_thread(self._inspect, path, self._required)
            adapter = await asyncio.wrap_future(self._engine.load_adapter(name, file))
            self._resident[name] = adapter
            return adapter
        finally:
            del self._loading[name]

    async def _unload(self, adapter: LoadedAdapter) -> None:
        try:
            await asyncio.wrap_future(self._engine.unload_adapter(adapter))
        finally:
            del self._leaving[adapter.name]

    def _check_slots(self) -> None:
        names = [*self._resident, *self._loading, *self._leaving]
        if len(names) >= self.num_slots:
            raise NoSlot(
                f"all {self.num_slots} places for adapters are taken ({', '.join(names)}): unload one, "
                "or start the engine with a larger max_adapters"
            )


def _check_same(name: str, held: Path, wanted: Path) -> None:
    if held != wanted:
        raise NameTaken(f"the adapter {name!r} is loaded from {held}; a name is never reused for another file")
