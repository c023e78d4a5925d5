"""The table of adapters: one load per name, places, names that are never reused, leaving."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest

from backends.llamacpp.adapter_file import AdapterFile, Requirements
from backends.llamacpp.adapters import (
    AdapterMissing,
    AdapterTable,
    LoadedAdapter,
    NameTaken,
    NoSlot,
    UnloadWithdrawn,
)
from backends.llamacpp.binding.errors import AdapterError


class Thread:
    """The engine's thread, which finishes a command when it is told to."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, Future[LoadedAdapter]]] = []
        self.unloads: list[tuple[LoadedAdapter, Future[None]]] = []

    def load_adapter(self, name: str, file: AdapterFile) -> Future[LoadedAdapter]:
        future: Future[LoadedAdapter] = Future()
        self.loads.append((name, future))
        return future

    def unload_adapter(self, adapter: LoadedAdapter) -> Future[None]:
        future: Future[None] = Future()
        self.unloads.append((adapter, future))
        return future

    async def finish_load(self, path: Path = Path("/a")) -> LoadedAdapter:
        while not self.loads:
            await asyncio.sleep(0.001)
        name, future = self.loads.pop(0)
        adapter = LoadedAdapter(name, AdapterFile(path, 1), cast("Any", None))
        future.set_result(adapter)
        return adapter


def table(thread: Thread, num_slots: int = 2) -> AdapterTable:
    return AdapterTable(thread, num_slots, Requirements(), inspect_file=lambda path, _: AdapterFile(path, 1))


async def loaded(thread: Thread, names: AdapterTable, name: str, path: Path = Path("/a")) -> LoadedAdapter:
    adapter, _ = await asyncio.gather(names.load(name, path), thread.finish_load(path))
    return adapter


async def test_many_who_ask_for_one_name_wait_for_one_load() -> None:
    thread = Thread()
    names = table(thread)
    tasks = [asyncio.create_task(names.load("a", Path("/a"))) for _ in range(10)]
    gone = asyncio.create_task(names.load("a", Path("/a")))
    await asyncio.sleep(0.01)
    gone.cancel()
    adapter = await thread.finish_load()
    assert set(await asyncio.gather(*tasks)) == {adapter}
    assert not thread.loads
    assert names.find("a") is adapter
    assert await names.load("a", Path("/a")) is adapter


async def test_a_name_belongs_to_one_file() -> None:
    thread = Thread()
    names = table(thread)
    loading = asyncio.create_task(names.load("a", Path("/a")))
    await asyncio.sleep(0)
    with pytest.raises(NameTaken):
        await names.load("a", Path("/b"))
    await thread.finish_load()
    await loading
    with pytest.raises(NameTaken):
        await names.load("a", Path("/b"))


async def test_places_are_taken_while_loading_and_while_leaving() -> None:
    thread = Thread()
    names = table(thread)
    await loaded(thread, names, "a")
    loading = asyncio.create_task(names.load("b", Path("/b")))
    await asyncio.sleep(0)
    with pytest.raises(NoSlot, match=r"all 2 places for adapters are taken \(a, b\)"):
        await names.load("c", Path("/c"))
    await thread.finish_load(Path("/b"))
    await loading
    leaving = asyncio.create_task(names.unload("a"))
    await asyncio.sleep(0.01)
    with pytest.raises(NoSlot):
        await names.load("c", Path("/c"))
    thread.unloads[0][1].set_result(None)
    await leaving
    await loaded(thread, names, "c")


async def test_a_failed_load_leaves_the_place() -> None:
    thread = Thread()
    names = table(thread, 1)
    loading = [asyncio.create_task(names.load("a", Path("/a"))) for _ in range(2)]
    while not thread.loads:
        await asyncio.sleep(0.001)
    thread.loads.pop()[1].set_exception(AdapterError("broken"))
    for task in loading:
        with pytest.raises(AdapterError, match="broken"):
            await task
    await loaded(thread, names, "b")


async def test_a_leaving_adapter_takes_no_requests() -> None:
    thread = Thread()
    names = table(thread)
    adapter = await loaded(thread, names, "a")
    names.check(adapter)
    leaving = [asyncio.create_task(names.unload("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert names.find("a") is None
    assert not list(names.resident)
    with pytest.raises(AdapterMissing, match="has been unloaded"):
        names.check(adapter)
    assert [held.name for held in names.held] == ["a"], "it takes its place until it is gone"
    assert names.is_leaving("a")
    thread.unloads[0][1].set_result(None)
    await asyncio.gather(*leaving)
    assert not list(names.held)
    second = await loaded(thread, names, "a")
    assert second is not adapter
    with pytest.raises(AdapterMissing):
        names.check(adapter)
    assert len(thread.unloads) == 1


async def test_an_unloading_for_which_nobody_waits_any_more_is_withdrawn() -> None:
    thread = Thread()
    names = table(thread)
    adapter = await loaded(thread, names, "a")
    await loaded(thread, names, "b")
    leaving = [asyncio.create_task(names.unload("a")) for _ in range(2)]
    await asyncio.sleep(0.01)
    leaving[0].cancel()
    await asyncio.sleep(0.01)
    assert names.find("a") is None, "the other one waits still"
    leaving[1].cancel()
    await asyncio.sleep(0.01)
    assert names.find("a") is adapter
    names.check(adapter)
    assert thread.unloads[0][1].cancelled()
    assert [held.name for held in names.resident] == ["a", "b"]
    with pytest.raises(NoSlot, match=r"all 2 places for adapters are taken \(a, b\)"):
        await names.load("c", Path("/c"))
    again = asyncio.create_task(names.unload("a"))
    await asyncio.sleep(0.01)
    thread.unloads[1][1].set_result(None)
    await again
    assert [held.name for held in names.held] == ["b"]


async def test_a_load_takes_a_leaving_adapter_back() -> None:
    thread = Thread()
    names = table(thread)
    adapter = await loaded(thread, names, "a")
    leaving = asyncio.create_task(names.unload("a"))
    await asyncio.sleep(0.01)
    with pytest.raises(NameTaken):
        await names.load("a", Path("/b"))
    assert await names.load("a", Path("/a")) is adapter
    assert names.find("a") is adapter
    with pytest.raises(UnloadWithdrawn, match="'a' was loaded again"):
        await leaving


async def test_what_is_being_freed_is_not_taken_back() -> None:
    thread = Thread()
    names = table(thread)
    adapter = await loaded(thread, names, "a")
    leaving = asyncio.create_task(names.unload("a"))
    await asyncio.sleep(0.01)
    assert thread.unloads[0][1].set_running_or_notify_cancel()
    leaving.cancel()
    again = asyncio.create_task(names.load("a", Path("/a")))
    await asyncio.sleep(0.01)
    assert not thread.loads, "a name is not loaded anew before it is gone"
    assert names.find("a") is None
    thread.unloads[0][1].set_result(None)
    second = await thread.finish_load()
    assert await again is second is not adapter


async def test_an_engine_that_ends_answers_who_unloads() -> None:
    thread = Thread()
    names = table(thread)
    await loaded(thread, names, "a")
    leaving = asyncio.create_task(names.unload("a"))
    await asyncio.sleep(0.01)
    thread.unloads[0][1].set_exception(ConnectionError("it ended"))
    with pytest.raises(ConnectionError):
        await leaving


async def test_what_is_not_there_is_not_found() -> None:
    with pytest.raises(AdapterMissing, match="'x' cannot be found"):
        await table(Thread()).unload("x")


async def test_unloading_what_is_loading_waits_for_it() -> None:
    thread = Thread()
    names = table(thread)
    loading = asyncio.create_task(names.load("a", Path("/a")))
    await asyncio.sleep(0.01)
    leaving = asyncio.create_task(names.unload("a"))
    await asyncio.sleep(0.01)
    adapter = await thread.finish_load()
    assert await loading is adapter
    while not thread.unloads:
        await asyncio.sleep(0.001)
    thread.unloads[0][1].set_result(None)
    await leaving
