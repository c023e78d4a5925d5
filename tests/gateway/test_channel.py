"""Framing and typing of the channel between control and worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.channel import MAX_FRAME_BYTES, Channel, ChannelError, control_end, worker_end
from gateway.snapshot import (
    Ack,
    Drain,
    Engine,
    EngineTrouble,
    Key,
    Model,
    Ready,
    Snapshot,
    ToControl,
    ToWorker,
    Uses,
    Want,
    WantEngine,
)

Pair = tuple[Channel[ToWorker, ToControl], Channel[ToControl, ToWorker]]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    left, right = socket.socketpair()
    control, worker = await control_end(left), await worker_end(right)
    yield control, worker
    control.close()
    worker.close()
    await asyncio.sleep(0)


async def test_every_message_arrives_as_it_was_sent(pair: Pair) -> None:
    control, worker = pair
    engine = Engine("m-0", 0, "vllm", "asleep", "h", 1, is_on_demand=True)
    model = Model("m", "m@1", (engine,), refused_options=("min_p",))
    snapshot = Snapshot(3, (model,), keys=(Key("k", "00"),), engine_wait_s=9.0, max_engine_waiting=3)
    for down in (snapshot, Drain(1.5)):
        await control.send(down)
        assert await worker.receive() == down
    for up in (
        Ready(7),
        Ack(3),
        EngineTrouble("m-0", "engine_reset"),
        Want("s@1"),
        WantEngine("m"),
        Uses(("s@1", "t@2")),
    ):
        worker.post(up)
        assert await control.receive() == up


async def test_a_large_snapshot_passes_while_the_other_end_reads(pair: Pair) -> None:
    control, worker = pair
    snapshot = Snapshot(1, tuple(Model(f"model-{number}" * 20, "x", ()) for number in range(5000)))
    _, received = await asyncio.gather(control.send(snapshot), worker.receive())
    assert received == snapshot


async def test_none_at_the_end_even_in_the_middle_of_a_frame(pair: Pair) -> None:
    control, worker = pair
    control._writer.write(b"\0\0\0\x09{")
    control.close()
    assert await worker.receive() is None


@pytest.mark.parametrize("frame", [b"\0\0\0\x02{}", b"\0\0\0\x01x", (MAX_FRAME_BYTES + 1).to_bytes(4, "big")])
async def test_nonsense_is_an_error(pair: Pair, frame: bytes) -> None:
    control, worker = pair
    control._writer.write(frame)
    with pytest.raises(ChannelError):
        await worker.receive()


async def test_the_wrong_direction_is_an_error(pair: Pair) -> None:
    control, worker = pair
    await control.send(Ready(1))  # type: ignore[arg-type]
    with pytest.raises(ChannelError):
        await worker.receive()
