"""The worker as control starts it: a process with inherited descriptors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from gateway.channel import Channel, control_end
from gateway.counters import Counters
from gateway.snapshot import (
    Ack,
    Adapter,
    Drain,
    Engine,
    EngineTrouble,
    Model,
    Ping,
    Pong,
    Ready,
    Snapshot,
    ToControl,
    ToWorker,
    Uses,
    Want,
)
from tests.gateway.data.rig import StubEngine, echo, post, stream


class Process:
    """One worker and control's end of everything it inherited."""

    def __init__(self, tmp_path: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.log_path = tmp_path / "access.jsonl"
        ours, theirs = socket.socketpair()
        self._ours = ours
        self.counters_fd, self.counters = Counters.create(4, 2)
        (tmp_path / "prometheus").mkdir()
        fds = {
            "--listen-fd": self.listener.fileno(),
            "--channel-fd": theirs.fileno(),
            "--counters-fd": self.counters_fd,
        }
        numbers = {**fds, "--column": 1, "--num-engine-slots": 4, "--num-workers": 2}
        argv = [word for flag, number in numbers.items() for word in (flag, str(number))]
        env = {
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "prometheus"),
            "FORGEGATE_ACCESS_LOG": str(self.log_path),
        }
        self.child = subprocess.Popen(
            [sys.executable, "-m", "gateway.data.worker", *argv], pass_fds=tuple(fds.values()), env=env
        )
        theirs.close()
        self.channel: Channel[ToWorker, ToControl]

    async def start(self, engine: StubEngine) -> None:
        self.channel = await control_end(self._ours)
        assert await self.channel.receive() == Ready(self.child.pid)
        await engine.start()
        routes = Engine("m-0", 3, "llamacpp", "ready", "127.0.0.1", engine.port)
        await self.channel.send(Snapshot(4, (Model("m", "m@1", (routes,), capabilities=("completions", "chat")),)))
        assert await self.channel.receive() == Ack(4)

    async def exit_code(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.child.wait), 8)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.listener.close()
        os.close(self.counters_fd)
        self.counters.close()
        self._ours.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process(tmp_path)
    yield process
    if hasattr(process, "channel"):
        process.channel.close()
    process.close()
    await asyncio.sleep(0.02)


async def test_serves_counts_logs_and_drains(worker: Process) -> None:
    engine = StubEngine(stream(20, gap_s=0.02))
    worker.channel = await control_end(worker._ours)
    assert isinstance(await worker.channel.receive(), Ready)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}") as client:
        early = asyncio.create_task(client.get("/health/ready"))
        await asyncio.sleep(0.2)
        assert not early.done()  # it waits: a worker that knows nothing yet takes no connection
        await engine.start()
        routes = Engine("m-0", 3, "llamacpp", "ready", "127.0.0.1", engine.port)
        await worker.channel.send(Snapshot(4, (Model("m", "m@1", (routes,), capabilities=("completions", "chat")),)))
        assert await worker.channel.receive() == Ack(4)
        assert (await early).status_code == 200
        await worker.channel.send(Ping())
        assert await worker.channel.receive() == Pong()
        async with client.stream("POST", "/v1/completions", json={"model": "m"}) as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            assert worker.counters.running(3) == 1
            assert worker.counters.outstanding_tokens(3) > 0
            await worker.channel.send(Drain(5))
            rest = b"".join([piece async for piece in pieces])
            assert rest.endswith(b"[DONE]\n\n")
    assert await worker.exit_code() == 0
    worker.counters.check_integrity()
    assert worker.counters.running(3) == 0
    lines = [orjson.loads(line) for line in worker.log_path.read_bytes().splitlines()]
    assert [line["status"] for line in lines if line["path"] == "/v1/completions"] == [200]
    await engine.stop()


async def test_sigterm_drains_and_sigint_is_ignored(worker: Process) -> None:
    engine = StubEngine(echo())
    await worker.start(engine)
    worker.child.send_signal(signal.SIGINT)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}") as client:
        assert (await client.post("/v1/completions", json={"model": "m"})).status_code == 200
        worker.child.send_signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
    await engine.stop()


async def test_nonsense_on_the_channel_ends_the_worker(worker: Process) -> None:
    worker.channel = await control_end(worker._ours)
    worker.channel._writer.write(b"\0\0\0\x02{}")
    assert await worker.exit_code() == 1


async def test_exits_at_once_when_control_is_gone(worker: Process) -> None:
    engine = StubEngine(stream(1000, gap_s=0.05))
    await worker.start(engine)
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(post(b'{"model":"m"}'))
    await reader.readuntil(b'"n": 0')
    worker.channel.close()
    assert await asyncio.wait_for(asyncio.to_thread(worker.child.wait), 2) == 1
    await asyncio.wait_for(engine.calls[0].gone.wait(), 2)
    writer.close()
    await engine.stop()


async def test_drain_gives_up_after_its_grace(worker: Process) -> None:
    engine = StubEngine(stream(1000, gap_s=0.05))
    await worker.start(engine)
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(post(b'{"model":"m"}'))
    await reader.readuntil(b'"n": 0')
    await worker.channel.send(Drain(0.2))
    rest = await reader.read()
    assert rest.count(b'"error"') == 1
    assert rest.endswith(b"\n\n\r\n0\r\n\r\n")
    assert await worker.exit_code() == 0
    writer.close()
    await engine.stop()


async def test_tells_control_of_trouble_once_a_second(worker: Process) -> None:
    engine = StubEngine(echo())
    await worker.start(engine)
    await engine.stop()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}") as client:
        for _ in range(5):
            assert (await client.post("/v1/completions", json={"model": "m"})).status_code == 502
        page = (await client.get("/metrics")).text
    assert await worker.channel.receive() == EngineTrouble("m-0", "engine_unreachable")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.channel.receive(), 0.1)
    assert 'forgegate_errors_total{class="engine_unreachable"} 5.0' in page


async def test_asks_control_for_an_adapter_and_serves_it_from_the_next_snapshot(worker: Process) -> None:
    engine = StubEngine(echo())
    await worker.start(engine)
    models = (
        Model("m", "m@1", (Engine("m-0", 3, "llamacpp", "ready", "127.0.0.1", engine.port),), capabilities=("chat",)),
    )
    await worker.channel.send(Snapshot(5, models, (Adapter("a@1", "m"),)))
    assert await worker.channel.receive() == Ack(5)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}") as client:
        running = asyncio.create_task(client.post("/v1/chat/completions", json={"model": "a@1"}))
        assert await worker.channel.receive() == Uses(("a@1",))
        assert await worker.channel.receive() == Want("a@1")
        for _ in range(100):
            if "forgegate_adapter_waiting 1.0" in (await client.get("/metrics")).text:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the waiting request does not show in the metrics")
        await worker.channel.send(Snapshot(6, models, (Adapter("a@1", "m", ("m-0",)),)))
        assert await worker.channel.receive() == Ack(6)
        response = await running
    assert (response.status_code, response.headers["x-forgegate-model"]) == (200, "a@1")
    worker.child.send_signal(signal.SIGTERM)
    assert await worker.exit_code() == 0
    await engine.stop()
