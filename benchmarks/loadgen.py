"""Drives a target: a closed loop of C streams over N requests. Measures first, reads what came back afterwards."""

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks import transcript
from benchmarks.client import Client
from benchmarks.http1 import Exchange
from benchmarks.record import Record
from benchmarks.workload import Request

T = TypeVar("T")

RAW_BYTES_KEPT = 256 << 20
"""Raw answers kept before they are read. A run above this reads them as it goes, which costs client time."""


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What one run of one load did."""

    concurrency: int
    records: tuple[Record, ...]
    """In the order of the request list."""
    started_s: float
    ended_s: float
    cpu_s: float
    """CPU time of this process during the run."""
    num_connects: int

    @property
    def duration_s(self) -> float:
        """From the first request's due time to the last answer's end."""
        return self.ended_s - self.started_s

    @property
    def client_busy(self) -> float:
        """Share of one core that the client used: near 1, the client was measured, not the server."""
        return self.cpu_s / self.duration_s if self.duration_s > 0 else 0.0


async def closed_loop(client: Client, path: str, requests: Sequence[Request], concurrency: int) -> LoadRun:
    """`concurrency` streams, each sending its next request when its last one has ended, until the list is empty.

    A request is due when its stream becomes free. A closed loop slows down with the server, so its latencies hold for
    this number of users, not for a rate of arrivals.
    """
    desk = _Desk(client, path, iter(requests))
    num_connects = client.num_connects
    gc.collect()
    gc.disable()  # nothing here makes cycles, and a collection over the kept answers would stall every stream
    try:
        started_s, cpu_s = client.clock(), time.process_time()
        async with asyncio.TaskGroup() as streams:
            for _ in range(min(concurrency, len(requests))):
                streams.create_task(desk.work())
        ended_s, cpu_s = client.clock(), time.process_time() - cpu_s
    finally:
        gc.enable()
    return LoadRun(concurrency, desk.records(), started_s, ended_s, cpu_s, client.num_connects - num_connects)


def interleave(items: Sequence[T], repeats: int) -> list[tuple[int, T]]:
    """(repeat, item), every item once per repeat, every second repeat in reverse: slow drift of a machine (heat,
    neighbours) then falls on all items alike.
    """
    return [(repeat, item) for repeat in range(repeats) for item in (items if repeat % 2 == 0 else reversed(items))]


class _Desk:
    """Hands out requests and keeps what came back."""

    def __init__(self, client: Client, path: str, requests: Iterator[Request]) -> None:
        self._client = client
        self._path = path
        self._requests = requests
        self._kept: list[tuple[Request, float, Exchange]] = []
        self._num_kept_bytes = 0
        self._read: list[Record] = []

    async def work(self) -> None:
        """One stream."""
        for request in self._requests:
            intended_s = self._client.clock()
            exchange = await self._client.post(self._path, request.body)
            self._kept.append((request, intended_s, exchange))
            self._num_kept_bytes += exchange.num_bytes
            if self._num_kept_bytes > RAW_BYTES_KEPT:
                self._read_kept()

    def records(self) -> tuple[Record, ...]:
        """Every request's record; call it when all streams have ended."""
        self._read_kept()
        return tuple(sorted(self._read, key=lambda record: record.index))

    def _read_kept(self) -> None:
        self._read += [transcript.read(exchange, request, intended_s) for request, intended_s, exchange in self._kept]
        self._kept.clear()
        self._num_kept_bytes = 0
