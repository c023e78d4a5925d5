"""What this client reaches on this machine against a server that costs next to nothing: the mock, in a process of its own.

Both share the cores, so the ceiling is that of the pair: a server that is measured at more than a part of it may have waited
for its client.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.client import Client, Target
from benchmarks.loadgen import LoadRun, closed_loop
from benchmarks.processes import run_load
from benchmarks.validity import Ceiling
from benchmarks.workload import Length, Workload

STREAMS, TOKENS = 64, 128
MEASURE_S = 1.0
START_S = 30.0
_FIRST = 4 * STREAMS
"""Requests from which it is guessed how many take MEASURE_S."""


class CeilingError(RuntimeError):
    """The mock did not start, or did not answer."""


async def measure_ceiling(num_processes: int = 1) -> Ceiling:
    """About four seconds. Raises CeilingError."""
    async with _mock() as url:
        client = Client(Target.from_url(url, None))
        try:
            short = await _rate(client, 1, num_processes)
            long = await _rate(client, TOKENS, num_processes)
        finally:
            client.close()
    num_chunks = sum(len(record.chunk_times_s) for record in long.records)
    return Ceiling(len(short.records) / short.duration_s, num_chunks / long.duration_s)


async def _rate(client: Client, num_tokens: int, num_processes: int) -> LoadRun:
    first = await _run(client, num_tokens, _FIRST, 1)
    num = max(_FIRST, int(_FIRST * MEASURE_S / first.duration_s) * num_processes)
    return await _run(client, num_tokens, num, num_processes)


async def _run(client: Client, num_tokens: int, num: int, num_processes: int) -> LoadRun:
    requests = Workload("mock", output_tokens=Length(num_tokens, num_tokens)).requests(
        num, f"ceiling/{num_tokens}/{num}"
    )
    if num_processes > 1:
        run = await run_load(client.options, requests, STREAMS, num_processes)
    else:
        run = await closed_loop(client, requests, STREAMS)
    failures = [record.failure for record in run.records if record.failure]
    if failures:
        raise CeilingError(
            f"the mock failed {len(failures)} of {num} requests: {failures[0].kind.value}: {failures[0].detail}"
        )
    return run


@asynccontextmanager
async def _mock() -> AsyncIterator[str]:
    words = ("-m", "benchmarks.cli", "mock", "--port", "0", "--ttft-ms", "0", "--itl-ms", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
        except TimeoutError:
            line = b""
        found = re.search(rb"http://\S+", line)
        if not found:
            raise CeilingError(f"the mock did not start within {START_S:g} s")
        yield found[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
