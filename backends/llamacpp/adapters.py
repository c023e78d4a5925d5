"""The adapters that an engine holds, by name. Lives on the event loop, which alone changes it.

    absent --load--> loading --> resident --unload--> leaving --last request ended--> absent
                                    ^                    |
                                    +--load, nobody waits for the unloading any more

Everything that waits for the engine's thread happens once per name, however many ask: whoever asks for a name that is
loading waits for that loading. A name that leaves takes no new requests; until it is being freed it can be taken back.
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


class UnloadWithdrawn(Exception):
    """Somebody loaded the adapter again before it was gone: it stays."""


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
        """Done when no sequence uses it any more and it is freed. It is running once the freeing cannot be withdrawn: cancelled
        before, the adapter stays."""
        ...


@dataclass(slots=True, eq=False)
class _Leaving:
    """An adapter that is freed when its last request has ended, unless it is taken back before."""

    freed: Future[None]
    gone: asyncio.Future[None]
    """The same on the event loop."""
    num_waiting: int = 0
    """Who asked for it and waits."""


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
        self._held: dict[str, LoadedAdapter] = {}
        """Resident or leaving."""
        self._loading: dict[str, tuple[Path, asyncio.Task[LoadedAdapter]]] = {}
        self._leaving: dict[str, _Leaving] = {}

    @property
    def held(self) -> Iterable[LoadedAdapter]:
        """Those that take a place, oldest first; what loads is not among them yet."""
        return tuple(self._held.values())

    @property
    def resident(self) -> Iterable[LoadedAdapter]:
        """Those that take requests, oldest first."""
        return tuple(adapter for name, adapter in self._held.items() if name not in self._leaving)

    def is_leaving(self, name: str) -> bool:
        return name in self._leaving

    def find(self, name: str) -> LoadedAdapter | None:
        return None if name in self._leaving else self._held.get(name)

    def check(self, adapter: LoadedAdapter | None) -> None:
        """Raises AdapterMissing where a request found an adapter that has left since."""
        if adapter is not None and self.find(adapter.name) is not adapter:
            raise AdapterMissing(f"the adapter {adapter.name!r} has been unloaded")

    async def load(self, name: str, path: Path) -> LoadedAdapter:
        """Load `path` under `name`, or take it back where it is leaving; the same again changes nothing.

        Raises AdapterError, NameTaken, NoSlot, EngineClosed.
        """
        while (held := self._held.get(name)) is not None:
            _check_same(name, held.file.path, path)
            leaving = self._leaving.get(name)
            if leaving is None or self._take_back(name, leaving):
                return held
            await asyncio.wait([leaving.gone])
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
        """Refuse new requests for `name` from now on, and free it when its last one has ended.

        It stays and takes requests again when nobody waits for that any more: all who asked were cancelled.
        Raises AdapterMissing, UnloadWithdrawn, EngineClosed.
        """
        if name in self._loading:
            await asyncio.wait([self._loading[name][1]])
        if name not in self._held:
            raise AdapterMissing(f"the adapter {name!r} cannot be found")
        leaving = self._leaving.get(name) or self._let_go(self._held[name])
        leaving.num_waiting += 1
        try:
            await asyncio.wait([leaving.gone])
        finally:
            leaving.num_waiting -= 1
            if not leaving.num_waiting:
                self._take_back(name, leaving)
        if leaving.gone.cancelled():
            raise UnloadWithdrawn(f"the adapter {name!r} was loaded again before it was gone: it stays")
        leaving.gone.result()

    async def _load(self, name: str, path: Path) -> LoadedAdapter:
        try:
            file = await asyncio.to_thread(self._inspect, path, self._required)
            adapter = await asyncio.wrap_future(self._engine.load_adapter(name, file))
            self._held[name] = adapter
            return adapter
        finally:
            del self._loading[name]

    def _let_go(self, adapter: LoadedAdapter) -> _Leaving:
        freed = self._engine.unload_adapter(adapter)
        self._leaving[adapter.name] = leaving = _Leaving(freed, asyncio.wrap_future(freed))
        # The first to hear of it: whoever waits finds the place free.
        leaving.gone.add_done_callback(lambda _: self._left(adapter.name, leaving))
        return leaving

    def _left(self, name: str, leaving: _Leaving) -> None:
        if not leaving.gone.cancelled():
            leaving.gone.exception()  # seen, also where whoever asked has gone away
        if self._leaving.get(name) is leaving:
            del self._leaving[name], self._held[name]

    def _take_back(self, name: str, leaving: _Leaving) -> bool:
        """Whether it takes requests again; else it is gone, or being freed right now."""
        if self._leaving.get(name) is not leaving or not leaving.freed.cancel():
            return False
        del self._leaving[name]
        return True

    def _check_slots(self) -> None:
        names = [*self._held, *self._loading]
        if len(names) >= self.num_slots:
            raise NoSlot(
                f"all {self.num_slots} places for adapters are taken ({', '.join(names)}): unload one, "
                "or start the engine with a larger max_adapters"
            )


def _check_same(name: str, held: Path, wanted: Path) -> None:
    if held != wanted:
        raise NameTaken(f"the adapter {name!r} is loaded from {held}; a name is never reused for another file")
