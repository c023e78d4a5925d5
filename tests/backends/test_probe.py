"""Probes are bounded in time and size, whatever the other side does."""

from __future__ import annotations

import asyncio
import time

import pytest

from backends.base import Address
from backends.errors import ProbeFailed
from backends.probe import MAX_BODY_BYTES, Prober

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"


async def ask(piece: bytes, gap_s: float, timeout_s: float) -> bytes:
    """Probe a server that sends `piece` for ever."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(gap_s)
        except (ConnectionError, asyncio.CancelledError):
            writer.close()

    prober = Prober()
    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        return (await prober.get(Address("127.0.0.1", port), "/metrics", "", timeout_s)).body
    finally:
        server.close()
        await prober.close()


async def test_an_answer_that_trickles_in_fails_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(ProbeFailed, match=r"within 0\.3 s"):
        await ask(b"x", 0.05, 0.3)
    assert time.monotonic() - began < 2


async def test_an_answer_without_end_is_cut() -> None:
    assert len(await ask(b"x" * 1_000_000, 0, 20)) == MAX_BODY_BYTES
