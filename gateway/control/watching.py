"""Aliases that go back by themselves: what workers count is gathered, judged every second, and acted on through the normal path.

A version is on trial from the flip or split that brought it until it has been there for `TRIAL_WINDOWS` windows of its watch. What came
by a rollback is not: from there nothing goes back and forth. Rules are in the store; figures are not, so that after a start of control a
flip before it is judged by its errors alone.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import errors
from gateway.control.adapterviews import FiguresView
from gateway.control.desired import AliasState, Change, Shares, Watch
from gateway.control.figures import MAX_WINDOW_S, Figures, Traffic, breach, newest_of
from gateway.metrics import ADAPTERS_FILE
from gateway.snapshot import Tally

INTERVAL_S = 1.0
WINDOW_S = 300.0
"""Of aliases without a watch, for what is shown."""
TRIAL_WINDOWS = 12
ON_TRIAL = ("flip", "split", "force")


class Watched(Protocol):
    """The owner of aliases, as far as their watch needs it."""

    def aliases(self) -> tuple[AliasState, ...]: ...
    def history(self, alias: str) -> tuple[Change, ...]:
        """Newest first."""
        ...

    def retreat(self, alias: str, judged: Shares, reason: str) -> Awaitable[Change]: ...


class Watching:
    """One task. `say`: tells the operator. Times are Unix seconds, as those of changes are."""

    def __init__(
        self,
        adapters: Watched,
        say: Callable[[str], None],
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._adapters = adapters
        self._say = say
        self._path = folder / ADAPTERS_FILE if folder else None
        self._clock = clock
        self._traffic = Traffic()
        self._before: dict[str, tuple[float, Figures]] = {}
        """By alias: the newest change seen, and what was served fared until then."""
        self._num_rollbacks: dict[str, int] = {}
        self._said: dict[str, str] = {}
        self._going: dict[str, asyncio.Task[None]] = {}
        """By alias: rollbacks under way, which may have to load something first."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        for alias in self._adapters.aliases():
            self._before[alias.name] = (self._changed_at(alias.name), Figures())
        self._task = asyncio.create_task(self._run(), name="watch of aliases")

    async def close(self) -> None:
        tasks = {*self._going.values(), *([self._task] if self._task else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def tallied(self, rows: Iterable[Tally]) -> None:
        """A worker has counted these."""
        now_s = self._clock()
        for row in rows:
            self._traffic.add(row.alias, row.version, row, now_s)

    def figures(self, alias: str) -> tuple[FiguresView, ...]:
        """Of the versions that it serves or would go back to, in its window."""
        found = next((state for state in self._adapters.aliases() if state.name == alias), None)
        if found is None:
            return ()
        views = (self._view(found, share.adapter) for share in dict.fromkeys((*found.shares, *found.previous)))
        return tuple(view for view in {view.adapter: view for view in views}.values() if view.num_requests)

    async def look(self) -> None:
        """One round. A rollback that takes longer than until the next one goes on by itself."""
        self._traffic.forget(self._clock() - MAX_WINDOW_S)
        self._going = {name: task for name, task in self._going.items() if not task.done()}
        for alias in self._adapters.aliases():
            self._note_change(alias)
            if alias.watch is None or alias.name in self._going:
                continue
            if reason := self._judge(alias, alias.watch):
                work = self._go_back(alias, reason)
                self._going[alias.name] = asyncio.create_task(work, name=f"rollback of {alias.name}")
        if self._going:
            await asyncio.wait(self._going.values(), timeout=INTERVAL_S)
        self._write()

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - named boundary: logged; the next round may do better
                traceback.print_exc()
            await asyncio.sleep(INTERVAL_S)

    def _note_change(self, alias: AliasState) -> None:
        """What was served until a change is kept as it fared: the window moves on."""
        at_s = self._changed_at(alias.name)
        known = self._before.get(alias.name)
        if known is None or known[0] != at_s:
            since_s = at_s - _window_s(alias.watch)
            versions = [share.adapter for share in alias.previous]
            self._before[alias.name] = (at_s, self._traffic.between(alias.name, versions, since_s, at_s))

    def _judge(self, alias: AliasState, watch: Watch) -> str:
        """Why it should go back; empty where it should not."""
        now_s, newest = self._clock(), self._adapters.history(alias.name)[0]
        if newest.kind not in ON_TRIAL or not alias.previous or now_s > newest.at + TRIAL_WINDOWS * watch.window_s:
            return ""
        since_s = max(newest.at, now_s - watch.window_s)
        names = newest_of(alias.shares, alias.previous)
        beside = [share.adapter for share in alias.shares if share.adapter not in names]
        found = self._traffic.between(alias.name, names, since_s, now_s)
        before = self._before[alias.name][1]
        if beside:
            before = self._traffic.between(alias.name, beside, since_s, now_s)
        return breach(watch, found, before, f"{', '.join(names)} in the last {now_s - since_s:.0f} s")

    async def _go_back(self, alias: AliasState, reason: str) -> None:
        try:
            change = await self._adapters.retreat(alias.name, alias.shares, reason)
        except (
            errors.GatewayError
        ) as exc:  # it was moved meanwhile, or what it goes back to cannot be loaded now: next round
            text = f"alias {alias.name} should go back ({reason}) and could not: {exc.message}"
            if self._said.get(alias.name) != exc.message:
                self._said[alias.name] = exc.message
                self._say(text)
            return
        self._said.pop(alias.name, None)
        self._num_rollbacks[alias.name] = self._num_rollbacks.get(alias.name, 0) + 1
        served = ", ".join(share.adapter for share in change.shares)
        self._say(f"alias {alias.name} went back to {served}: {reason}")

    def _changed_at(self, alias: str) -> float:
        history = self._adapters.history(alias)
        return history[0].at if history else 0.0

    def _view(self, alias: AliasState, version: str) -> FiguresView:
        now_s = self._clock()
        found = self._traffic.between(alias.name, [version], now_s - _window_s(alias.watch), now_s)
        return FiguresView(version, found.num_requests, found.num_errors, found.ttft_s)

    # Metrics ----------------------------------------------------------------------------------------------------------

    def page(self) -> bytes:
        """All series in the Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(_Page(self._families))
        return generate_latest(registry)

    def _families(self) -> Iterator[Metric]:
        labels = ("alias", "adapter")
        requests = GaugeMetricFamily(
            "forgegate_adapter_window_requests", "Requests for an alias that ended lately, by version.", labels=labels
        )
        shares = GaugeMetricFamily(
            "forgegate_adapter_window_error_ratio", "Of them those that an engine failed, 0 to 1.", labels=labels
        )
        times = GaugeMetricFamily(
            "forgegate_adapter_window_ttft_seconds", "Their median time to first byte.", labels=labels
        )
        for alias in self._adapters.aliases():
            for view in self.figures(alias.name):
                key = (alias.name, view.adapter)
                requests.add_metric(key, view.num_requests)
                shares.add_metric(key, view.num_errors / view.num_requests)
                if view.ttft_s is not None:
                    times.add_metric(key, view.ttft_s)
        yield from (requests, shares, times)
        rollbacks = CounterMetricFamily(
            "forgegate_adapter_auto_rollbacks",
            "Rollbacks by the watch of an alias, since the start.",
            labels=("alias",),
        )
        for alias in self._adapters.aliases():
            if alias.watch is not None or alias.name in self._num_rollbacks:
                rollbacks.add_metric((alias.name,), self._num_rollbacks.get(alias.name, 0))
        yield rollbacks

    def _write(self) -> None:
        """Whole or not at all: it may be read at any moment."""
        if self._path is None:
            return
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(self.page())
            os.replace(temporary, self._path)
        except OSError:
            with suppress(OSError):
                self._path.unlink()


class _Page(Collector):
    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families()


def _window_s(watch: Watch | None) -> float:
    return watch.window_s if watch else WINDOW_S
