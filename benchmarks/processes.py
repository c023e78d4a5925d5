"""One load from several processes: each sends its share of one request list, all by the same clock from the same moment."""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import eventloop
from benchmarks.client import ClientOptions
from benchmarks.driver import lanes_of, split
from benchmarks.loadgen import LoadRun, closed_loop, merged, open_loop
from benchmarks.traffic.request import Request

HEAD_START_S = 0.2
"""From when all are ready until the load starts: long enough for the message that says so to reach each of them."""

OPEN_AHEAD = 8
"""Connections that a process of an open loop has before it starts; how many more it needs depends on the server."""

_DIED = "a process of the client died; with less memory in use, or fewer --processes, it may live"


class ProcessError(RuntimeError):
    """A process ended before it had sent its share."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does. `num_streams` 0 is an open loop."""

    requests: list[Request]
    num_streams: int
    max_connections: int | None


def shares_of(requests: Sequence[Request], num_streams: int, max_connections: int | None, num: int) -> list[Share]:
    """Deal a list out to at most `num` processes, each session as a whole; none of them is left without work."""
    lanes = lanes_of(requests)
    num = max(1, min(limit for limit in (num, len(lanes), num_streams or num, max_connections or num)))
    return [
        Share(
            part,
            _part(num_streams, number, num),
            None if max_connections is None else _part(max_connections, number, num),
        )
        for number, part in enumerate(split(lanes, num))
    ]


async def run_load(
    options: ClientOptions, requests: Sequence[Request], num_streams: int, num_processes: int
) -> LoadRun:
    """Send the list, in a closed loop of `num_streams` or, where that is 0, in an open one. Raises ProcessError."""
    shares = shares_of(requests, num_streams, options.max_connections, num_processes)
    crew = _Crew()
    try:
        return await asyncio.to_thread(crew.run, options, shares)
    except asyncio.CancelledError:
        crew.stop()  # its thread then ends, too
        raise


def _part(whole: int, number: int, num: int) -> int:
    return whole // num + (number < whole % num)


class _Crew:
    """The processes of one run."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the event loop and its sockets
        self._processes: list[Any] = []

    def run(self, options: ClientOptions, shares: Sequence[Share]) -> LoadRun:
        """Blocks until all have sent their shares, or one has died."""
        with ExitStack() as stack:
            stack.callback(self.stop)
            lines = [stack.enter_context(self._start(options, share)) for share in shares]
            for line in lines:
                _receive(line)
            start_s = time.monotonic() + HEAD_START_S
            for line in lines:
                _tell(line, start_s)
            return merged([_receive(line) for line in lines])

    def stop(self) -> None:
        """End those that still run."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def _start(self, options: ClientOptions, share: Share) -> "Connection[Any, Any]":
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, options, share), daemon=True)
        process.start()
        self._processes.append(process)
        theirs.close()
        return ours


def _tell(line: "Connection[Any, Any]", start_s: float) -> None:
    try:
        line.send(start_s)
    except OSError as exc:
        raise ProcessError(_DIED) from exc


def _receive(line: "Connection[Any, Any]") -> Any:
    try:
        found = line.recv()
    except EOFError as exc:
        raise ProcessError(_DIED) from exc
    if isinstance(found, BaseException):
        raise ProcessError(f"a process of the client failed: {type(found).__name__}: {found}") from found
    return found


def _work(line: "Connection[Any, Any]", options: ClientOptions, share: Share) -> None:
    """Of a child process: say that it is ready, hear when to start, give the run back."""
    try:
        line.send(eventloop.run(_drive(line, replace(options, max_connections=share.max_connections), share)))
    except Exception as exc:  # noqa: BLE001  # a child's boundary: its parent raises it
        line.send(exc)
    except KeyboardInterrupt:  # the parent has it too, and says so
        pass


async def _drive(line: "Connection[Any, Any]", options: ClientOptions, share: Share) -> LoadRun:
    client = options.client()
    try:
        await client.pool.open(share.num_streams or OPEN_AHEAD)
        line.send("ready")
        start_s = line.recv()
        if share.num_streams:
            return await closed_loop(client, share.requests, share.num_streams, start_s)
        return await open_loop(client, share.requests, start_s)
    finally:
        client.close()
        await asyncio.sleep(0)
