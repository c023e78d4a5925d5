"""Probes are bounded in time and size, whatever the other side does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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


class Listener:
    """A server that answers whatever comes, and counts connections."""

    def __init__(self) -> None:
        self.num_connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2 if head.startswith(b"POST") else 0)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()


@asynccontextmanager
async def listening(prober: Prober) -> AsyncIterator[tuple[Listener, Address]]:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    try:
        yield listener, Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        await prober.close()
        server.close()


async def test_calls_that_follow_each_other_share_a_connection() -> None:
    prober = Prober()
    async with listening(prober) as (listener, address):
        call = prober.call(address, "s")
        for _ in range(3):
            assert (await call("/v1/load_lora_adapter", b"{}", 5)).body == b"{}"
        assert listener.num_connections == 1


async def test_a_probe_shares_no_connection() -> None:
    prober = Prober()
    async with listening(prober) as (listener, address):
        fetch = prober.fetch(address, "s", 5)
        for _ in range(3):
            await fetch("/health")
        assert listener.num_connections == 3


async def test_a_call_after_a_while_connects_anew() -> None:
    prober = Prober(reuse_s=0.05)
    async with listening(prober) as (listener, address):
        call = prober.call(address, "s")
        await call("/v1/load_lora_adapter", b"{}", 5)
        await asyncio.sleep(0.2)
        await call("/v1/load_lora_adapter", b"{}", 5)
        assert listener.num_connections == 2
