"""Who ends a run while it is about to begin ends it, and no child is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from gateway import errors
from gateway.control.benchmarkorder import BenchmarkBody
from gateway.control.benchmarks import Benchmarks, Means, Target
from gateway.control.benchmarkshelf import Run, RunState, Shelf


class SlowShelf(Shelf):
    """Takes a while for each run that it keeps, or cannot keep any."""

    def __init__(self, folder: Path, fault: OSError | None = None) -> None:
        super().__init__(folder)
        self._fault = fault

    def keep(self, run: Run) -> None:
        time.sleep(0.1)
        if self._fault is not None:
            raise self._fault
        super().keep(run)


class Child:
    """Runs until it is killed."""

    def __init__(self) -> None:
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await self.end

    def kill(self) -> None:
        if not self.end.done():
            self.end.set_result(-9)


class Launcher:
    def __init__(self) -> None:
        self.children: list[Child] = []

    async def spawn(self, *_: object) -> Child:
        self.children.append(Child())
        return self.children[-1]


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def make(launcher: Launcher, tmp_path: Path) -> Callable[..., Benchmarks]:
    async def nobody(_: str) -> None:
        return None

    async def changed() -> None: ...

    def find(_: str) -> Target:
        return Target("demo", "demo@1", ("chat",))

    def make(fault: OSError | None = None) -> Benchmarks:
        means = Means(cast(Any, launcher), nobody, "http://127.0.0.1:1", "key", find, lambda _: None, changed)
        return Benchmarks(SlowShelf(tmp_path, fault), means)

    return make


async def until_seen(benchmarks: Benchmarks) -> Run:
    while not benchmarks.runs():
        await asyncio.sleep(0.005)
    return benchmarks.runs()[0]


async def test_stopped_while_it_is_written_down_it_is_stopped(
    make: Callable[..., Benchmarks], launcher: Launcher
) -> None:
    benchmarks = make()
    begin = asyncio.create_task(benchmarks.begin(BenchmarkBody("demo"), "me"))
    run = await until_seen(benchmarks)
    assert (await benchmarks.stop(run.id, "you")).state is RunState.STOPPED
    assert (await begin).state is RunState.STOPPED
    assert all(child.end.done() for child in launcher.children)


async def test_closed_while_it_is_written_down_it_is_cut(make: Callable[..., Benchmarks], launcher: Launcher) -> None:
    benchmarks = make()
    begin = asyncio.create_task(benchmarks.begin(BenchmarkBody("demo"), "me"))
    await until_seen(benchmarks)
    await benchmarks.close()
    assert (await begin).state is RunState.CUT
    assert all(child.end.done() for child in launcher.children)
    with pytest.raises(errors.Conflict, match="stopping"):
        await benchmarks.begin(BenchmarkBody("demo"), "me")


async def test_what_cannot_be_written_down_is_no_run(make: Callable[..., Benchmarks], launcher: Launcher) -> None:
    benchmarks = make(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        await benchmarks.begin(BenchmarkBody("demo"), "me")
    assert benchmarks.runs() == ()
    assert launcher.children == []
