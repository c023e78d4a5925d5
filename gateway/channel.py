"""Framed, typed messages between control and one worker, over a connected AF_UNIX stream socket.

    frame = 4-byte big-endian length + JSON of one struct of `gateway.snapshot`, tagged by `type`

Each end decodes only the union that the other end may send; anything else is `ChannelError`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Generic, TypeVar

import msgspec

from gateway.snapshot import ToControl, ToWorker

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Far above any snapshot: a larger announced length means that the two ends lost step."""

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class ChannelError(Exception):
    """The peer sent something that is no message of this channel."""


class Channel(Generic[Sent, Received]):
    """One end of the pair. Make it with `control_end` or `worker_end`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.json.Decoder[Received],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = msgspec.json.Encoder()
        self._decoder = decoder

    async def send(self, message: Sent) -> None:
        """Write one message and wait while the peer is slow to read. Raises ConnectionError when it is gone."""
        self.post(message)
        await self._writer.drain()

    def post(self, message: Sent) -> None:
        """Queue one message without waiting: for callers that cannot await and bound their own rate."""
        payload = self._encoder.encode(message)
        self._writer.write(_LENGTH.pack(len(payload)) + payload)

    async def receive(self) -> Received | None:
        """Return the next message, or None once the peer closed. Raises ChannelError on what is no message."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MAX_FRAME_BYTES:
                raise ChannelError(f"frame of {length} bytes announced, {MAX_FRAME_BYTES} is the limit")
            payload = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            return self._decoder.decode(payload)
        except msgspec.MsgspecError as exc:
            raise ChannelError(str(exc)) from exc

    def close(self) -> None:
        """Close at once; the peer's `receive` returns None."""
        self._writer.close()


async def control_end(sock: socket.socket) -> Channel[ToWorker, ToControl]:
    """Take over `sock` as control's end."""
    reader, writer = await asyncio.open_connection(sock=sock)
    return Channel(reader, writer, msgspec.json.Decoder(ToControl))


async def worker_end(sock: socket.socket) -> Channel[ToControl, ToWorker]:
    """Take over `sock` as the worker's end."""
    reader, writer = await asyncio.open_connection(sock=sock)
    return Channel(reader, writer, msgspec.json.Decoder(ToWorker))
