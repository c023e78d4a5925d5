"""How busy every ready engine says it is: asked every two seconds, kept for others, and written for the metrics page.

Control asks, workers answer scrapes: the page of any worker ends with the file that this writes into their folder. An engine's
gauges are there while it is ready and answers. Its counters go on from one launch to the next, as if it had never been started anew.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backends.base import Load
from backends.status import State
from gateway.control.fleet import Member
from gateway.metrics import ENGINES_FILE

INTERVAL_S = 2.0
MAX_AGE_S = 10.0
"""An engine that gave no answer for longer is left out: it may be too busy for one, or hang."""

Ask = Callable[[str], Awaitable[Load | None]]
Heard = Callable[[Member, Load], None]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of the file, by `model` and `engine`."""

    name: str
    field: str
    """Of `Load`."""
    help: str


GAUGES = (
    Series("forgegate_engine_requests_running", "num_running", "Requests that an engine computes now."),
    Series("forgegate_engine_requests_waiting", "num_waiting", "Requests that wait inside an engine."),
    Series("forgegate_engine_kv_usage_ratio", "kv_usage", "Share of an engine's KV cache in use, 0 to 1."),
    Series("forgegate_engine_adapters_running", "adapters_running", "Adapters with requests on an engine now."),
)
COUNTERS = (
    Series("forgegate_engine_preemptions", "num_preemptions", "Requests that gave their KV cache back, to be computed again."),
    Series("forgegate_engine_prompt_tokens", "num_prompt_tokens", "Prompt tokens, those taken from the prefix cache included."),
    Series("forgegate_engine_cached_tokens", "num_cached_tokens", "Prompt tokens taken from the prefix cache."),
    Series("forgegate_engine_generated_tokens", "num_generated_tokens", "Tokens that an engine generated."),
    Series("forgegate_engine_drafts", "num_drafts", "Steps of speculation, counted for each request."),
    Series("forgegate_engine_draft_tokens", "num_draft_tokens", "Tokens that speculation proposed."),
    Series("forgegate_engine_accepted_tokens", "num_accepted_tokens", "Proposed tokens that the model accepted."),
)  # fmt: skip


class Tally:
    """One engine's counts over all of its launches. A count that fell back began anew."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys((series.field for series in COUNTERS), 0)
        self._last = Load()
        self._launch = -1

    def add(self, load: Load, launch: int) -> None:
        before = self._last if launch == self._launch else Load()
        for field in self.totals:
            now, then = getattr(load, field), getattr(before, field)
            self.totals[field] += now - then if now >= then else now
        self._last, self._launch = load, launch


@dataclass(slots=True)
class _Seen:
    load: Load
    at: float
    launch: int


class LoadWatch:
    """One task. `heard` is told each fresh answer; `folder`: that of the workers' metrics."""

    def __init__(
        self,
        ask: Ask,
        members: Mapping[str, Member],
        folder: Path,
        heard: Heard = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._members = members
        self._path = folder / ENGINES_FILE
        self._heard = heard
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._tallies: dict[str, Tally] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="load watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def last(self, engine_id: str) -> Load | None:
        """The newest answer of a ready engine; None where there is none of its present launch, or only an old one."""
        seen, member = self._seen.get(engine_id), self._members.get(engine_id)
        if seen is None or member is None or member.status.state is not State.READY:
            return None
        is_fresh = seen.launch == member.status.num_restarts and self._clock() - seen.at <= MAX_AGE_S
        return seen.load if is_fresh else None

    async def look(self) -> None:
        """One round: ask all engines side by side, and write what they say."""
        ready = [member for member in self._members.values() if member.status.state is State.READY]
        await asyncio.gather(*map(self._look_at, ready))
        self._write()

    def page(self) -> bytes:
        """All series in the Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(_Page(self._families))
        return generate_latest(registry)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - named boundary: logged; the next round may do better
                traceback.print_exc()
            await asyncio.sleep(INTERVAL_S)

    async def _look_at(self, member: Member) -> None:
        try:
            await self._ask_and_note(member)
        except Exception:  # noqa: BLE001 - named boundary: logged; what the other engines say is written all the same
            traceback.print_exc()

    async def _ask_and_note(self, member: Member) -> None:
        launch = member.status.num_restarts
        load = await self._ask(member.id)
        if load is None or launch != member.status.num_restarts:  # started anew meanwhile: whose answer is it?
            return
        self._seen[member.id] = _Seen(load, self._clock(), launch)
        self._tallies.setdefault(member.id, Tally()).add(load, launch)
        self._heard(member, load)

    def _families(self) -> Iterator[Metric]:
        shown = [(member, load) for member in self._members.values() if (load := self.last(member.id)) is not None]
        for series in GAUGES:
            gauge = GaugeMetricFamily(series.name, series.help, labels=("model", "engine"))
            for member, load in shown:
                value = getattr(load, series.field)
                gauge.add_metric((member.model, member.id), len(value) if isinstance(value, tuple) else value)
            yield gauge
        for series in COUNTERS:
            counter = CounterMetricFamily(series.name, series.help, labels=("model", "engine"))
            for member, _ in shown:
                counter.add_metric((member.model, member.id), self._tallies[member.id].totals[series.field])
            yield counter

    def _write(self) -> None:
        """Whole or not at all: it may be read at any moment. A disk that refuses costs the series, not the old ones' staying for ever."""
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
