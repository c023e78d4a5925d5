"""Drives a target by a request list, in an open or a closed loop. Measures first, reads what came back afterwards."""

import asyncio
import gc
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.client import Client
from benchmarks.driver import Driver, Lane, lanes_of
from benchmarks.http1 import Exchange
from benchmarks.metrics import Distribution, distribution
from benchmarks.pacer import Pacer
from benchmarks.record import Record
from benchmarks.traffic.request import Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What one run of one load did."""

    concurrency: int
    """Streams of a closed loop; 0 in an open one."""
    records: tuple[Record, ...]
    """In the order of the request list."""
    started_s: float
    ended_s: float
    cpu_s: float
    """CPU time of this process during the run; of all together where there were several."""
    num_connects: int
    lags_s: "array[float]"
    """Seconds from when each request was due until the client came to it: its pacing error."""
    busiest: float
    """Of the processes the largest share of one core."""
    num_processes: int = 1

    @property
    def duration_s(self) -> float:
        """From the first request's due time to the last answer's end."""
        return self.ended_s - self.started_s

    @property
    def client_busy(self) -> float:
        """Share of one core that the client used, the busiest of its processes: near 1, the client was measured, not the
        server.
        """
        return self.busiest

    @property
    def pacing_s(self) -> Distribution | None:
        """The pacing error, seconds."""
        return distribution(self.lags_s)


async def closed_loop(
    client: Client, requests: Sequence[Request], concurrency: int, start_s: float | None = None
) -> LoadRun:
    """`concurrency` streams, each sending its next request when its last one has ended and its user has thought, until the
    list is empty.

    A request is due when its stream becomes free, think time included. A closed loop slows down with the server, so its
    latencies hold for this number of users, not for a rate of arrivals.
    """
    lanes = lanes_of(requests)

    def run(driver: Driver, at_s: float) -> None:
        driver.run_closed(lanes, concurrency, at_s)

    return await _driven(client, run, concurrency, start_s)


async def open_loop(client: Client, requests: Sequence[Request], start_s: float | None = None) -> LoadRun:
    """Each request is sent when it is due, whatever the server does: `due_s` after the start, or, a later turn of a session,
    its pause after the answer before.
    """
    lanes: list[Lane] = lanes_of(requests)
    return await _driven(client, lambda driver, at_s: driver.run_open(lanes, at_s), 0, start_s)


def interleave(items: Sequence[T], repeats: int) -> list[tuple[int, T]]:
    """(repeat, item), every item once per repeat, every second repeat in reverse: slow drift of a machine (heat,
    neighbours) then falls on all items alike.
    """
    return [(repeat, item) for repeat in range(repeats) for item in (items if repeat % 2 == 0 else reversed(items))]


def merged(runs: Sequence[LoadRun]) -> LoadRun:
    """One run of several processes that started together."""
    lags_s = array("d")
    for run in runs:
        lags_s += run.lags_s
    records = sorted((record for run in runs for record in run.records), key=lambda record: record.index)
    return LoadRun(
        sum(run.concurrency for run in runs),
        tuple(records),
        min(run.started_s for run in runs),
        max(run.ended_s for run in runs),
        sum(run.cpu_s for run in runs),
        sum(run.num_connects for run in runs),
        lags_s,
        max(run.busiest for run in runs),
        len(runs),
    )


class _ClientWire:
    """The driver's wire to a target."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, request: Request, body: bytes, on_end: Callable[[Exchange], None]) -> None:
        self._client.pool.submit(self._client.encode(request.path, body), on_end, request.cancel)


async def _driven(
    client: Client, run: Callable[[Driver, float], None], concurrency: int, start_s: float | None
) -> LoadRun:
    num_connects, done, pacer = client.num_connects, asyncio.Event(), Pacer()
    driver = Driver(_ClientWire(client), pacer, client.clock, done.set)
    try:
        with _undisturbed():
            if start_s is None:
                start_s = client.clock()
            cpu_s = time.process_time()
            run(driver, start_s)
            await done.wait()
            ended_s, cpu_s = client.clock(), time.process_time() - cpu_s
    finally:
        pacer.close()
    busy = cpu_s / (ended_s - start_s) if ended_s > start_s else 0.0
    records = tuple(driver.records())
    return LoadRun(
        concurrency,
        records,
        start_s,
        ended_s,
        cpu_s,
        client.num_connects - num_connects,
        array("d", driver.lags()),
        busy,
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing here makes cycles, and a collection over the kept answers would stall every stream."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
