"""A data plane in the test's own process, real sockets on both sides, and an engine that does as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import orjson
from prometheus_client import CollectorRegistry

from gateway.accesslog import AccessLine, AccessLog
from gateway.counters import Counters
from gateway.data import app
from gateway.data.cold import ColdStage
from gateway.data.protocol import ClientConnection
from gateway.data.relay import Relay
from gateway.data.upstream import Pool
from gateway.metrics import Metrics
from gateway.routing.policies import LeastLoad
from gateway.snapshot import (
    Adapter,
    Alias,
    Engine,
    EngineTrouble,
    Key,
    Measured,
    Model,
    Share,
    Snapshot,
    Timeouts,
    ToControl,
    Uses,
    Want,
    WantEngine,
)

NUM_SLOTS = 8
ADMIN_TOKEN = b"the-admin"
TICK_S = 0.02


@dataclass
class Call:
    """One request that the stub engine received, and its connection."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the gateway closed the connection."""

    def json(self) -> dict[str, object]:
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None

    async def send(self, data: bytes) -> None:
        if self.writer.transport.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def send_json(self, status: int, body: dict[str, object], extra: bytes = b"") -> None:
        data = orjson.dumps(body)
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
        await self.send(head % (status, len(data), extra) + data)

    async def begin_stream(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    def kill(self) -> None:
        """Reset the connection, as a SIGKILL of the engine does."""
        self.writer.transport.abort()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    return b'data: {"n": %d, "text": "\xed\x95\x9c\xea\xb8\x80 \xf0\x9f\x99\x82"}\n\n' % number


DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
Script = Callable[[Call], Awaitable[None]]


class StubEngine:
    """Answers each request with the next of its scripts, the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.calls: list[Call] = []
        self.num_connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.num_connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        call = Call(head, await reader.readexactly(length), reader, writer)
        self.calls.append(call)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        watch = asyncio.ensure_future(self._watch(call))
        try:
            await script(call)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        return not writer.transport.is_closing() and not call.gone.is_set()

    async def _watch(self, call: Call) -> None:
        # Reading without consuming: a gateway that closes shows as EOF while the script still runs.
        while not call.reader.at_eof() and call.reader.exception() is None and not call.writer.transport.is_closing():
            await asyncio.sleep(0.005)
        call.gone.set()


class Rig:
    """Engines, one in-process data plane, its books."""

    def __init__(self) -> None:
        self.engines: list[StubEngine] = []
        self.reports: list[ToControl] = []
        """What was said to control."""
        self.lines: list[AccessLine] = []
        fd, self.reader = Counters.create(NUM_SLOTS, 1)
        loop = asyncio.get_running_loop()
        self.relay = Relay(
            loop=loop,
            clock=time.monotonic,
            counters=Counters.attach(fd, NUM_SLOTS, 1, 0),
            policy=LeastLoad(random.Random(0).randrange),
            metrics=Metrics(CollectorRegistry()),
            access_log=AccessLog.open(""),
            pool=Pool(loop, time.monotonic),
            report=self.reports.append,
            id_prefix="req-test-",
        )
        book = self.relay.book
        self.relay.book = lambda line: (self.lines.append(line), book(line))[1]  # type: ignore[method-assign]
        self.bugs: list[dict[str, object]] = []
        loop.set_exception_handler(lambda _, context: self.bugs.append(context))
        self.timeouts = Timeouts(connect_s=2, first_byte_s=5, idle_s=5, total_s=20)
        self.keys: tuple[Key, ...] = ()
        self.max_body_bytes = 1 << 20
        self.adapters: dict[str, Adapter] = {}
        self.aliases: tuple[Alias, ...] = ()
        self.adapter_wait_s = 5.0
        self.max_adapter_waiting = 8
        self.is_on_demand = False
        self.detail = "loading weights"
        """Of an engine that is not ready."""
        self.engine_wait_s = 5.0
        self.max_engine_waiting = 8
        self.admin_url = ""
        self.served_name = "m"
        self.capabilities: tuple[str, ...] = ("chat", "completions", "tokenize")
        self.refused_options: tuple[str, ...] = ()
        self.measured: tuple[Measured, ...] = ()
        self.port = 0
        self._version = 0

    async def start(self, *engines: StubEngine) -> None:
        self.engines = list(engines)
        for engine in engines:
            await engine.start()
        cold = ColdStage(app.build(self.relay))
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientConnection(self.relay, cold), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._clock = loop.create_task(self._tick())
        self.push()

    def push(self, *states: str) -> None:
        """Push a snapshot: model `m` on all stub engines, in the given states (default: ready)."""
        self._version += 1
        routes = tuple(
            Engine(
                f"m-{slot}", slot, "llamacpp", states[slot] if states else "ready", "127.0.0.1", engine.port,
                secret=f"secret-{slot}", model=self.served_name, detail="" if not states else self.detail,
                retry_after_s=7, is_on_demand=self.is_on_demand,
            )
            for slot, engine in enumerate(self.engines)
        )  # fmt: skip
        model = Model(
            "m", "m@0123456789ab", routes, context_length=2048, capabilities=self.capabilities,
            refused_options=self.refused_options, created=5,
        )  # fmt: skip
        snapshot = Snapshot(
            self._version,
            (model,),
            tuple(self.adapters.values()),
            self.aliases,
            measured=self.measured,
            keys=self.keys,
            timeouts=self.timeouts,
            max_body_bytes=self.max_body_bytes,
            adapter_wait_s=self.adapter_wait_s,
            max_adapter_waiting=self.max_adapter_waiting,
            engine_wait_s=self.engine_wait_s,
            max_engine_waiting=self.max_engine_waiting,
            admin_sha256=hashlib.sha256(ADMIN_TOKEN).hexdigest(),
            admin_url=self.admin_url,
        )
        self.relay.swap(snapshot)

    @property
    def troubles(self) -> list[EngineTrouble]:
        return [report for report in self.reports if isinstance(report, EngineTrouble)]

    @property
    def wants(self) -> list[str]:
        return [report.adapter for report in self.reports if isinstance(report, Want)]

    @property
    def engine_wants(self) -> list[str]:
        return [report.model for report in self.reports if isinstance(report, WantEngine)]

    @property
    def uses(self) -> list[str]:
        return [adapter for report in self.reports if isinstance(report, Uses) for adapter in report.adapters]

    def hold(self, name: str, *engines: str, **rest: object) -> None:
        """Change version `name` of an adapter, or make it: it is resident on `engines`. Says nothing before `push`."""
        self.adapters[name] = Adapter(name, "m", engines, created=6, proof="proven", gate="ungated", **rest)  # type: ignore[arg-type]

    def split(self, alias: str, **weights: int) -> None:
        """Point `alias` to its versions `alias@KEY`, each with its weight."""
        shares = tuple(Share(f"{alias}@{digest}", weight) for digest, weight in weights.items())
        self.aliases = (*(old for old in self.aliases if old.name != alias), Alias(alias, "m", shares, created=7))

    async def waiting(self, num: int) -> None:
        """Return once `num` requests wait in line."""
        for _ in range(400):
            if len(self.relay.line) == num:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{len(self.relay.line)} requests wait, not {num}")

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    async def ask(self, body: dict[str, object] | None = None, **kwargs: object) -> httpx.Response:
        async with self.client() as client:
            return await client.post("/v1/chat/completions", json=body or {"model": "m"}, **kwargs)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)

    async def settle(self) -> None:
        """Wait until nothing is in flight, then audit."""
        for _ in range(200):
            if not self.relay.exchanges:
                break
            await asyncio.sleep(0.01)
        self.relay.check_integrity()
        assert not self.bugs, self.bugs

    async def stop(self) -> None:
        try:
            await self.settle()
        finally:
            self._server.close()
            for connection in list(self.relay.connections):
                connection._transport.abort()  # type: ignore[attr-defined]
            self.relay.pool.close()
            for engine in self.engines:
                await engine.stop()
            self._clock.cancel()
            await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.relay.tick()


def post(body: bytes, *extra: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    """A raw request."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n" % (path, len(body))
    return head + b"".join(line + b"\r\n" for line in extra) + b"\r\n" + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """Read one answer with a content-length."""
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head[:-4].split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
    return int(status_line[9:12]), headers, body


def echo() -> Script:
    """Answers with what it was sent."""

    async def script(call: Call) -> None:
        await call.send_json(200, {"got": call.body.decode("utf-8", "replace"), "head": call.head.decode("latin-1")})

    return script


def stream(num_events: int, gap_s: float = 0.0) -> Script:
    """Streams numbered events, one chunk and one write each."""

    async def script(call: Call) -> None:
        await call.begin_stream()
        for number in range(num_events):
            await call.send(chunk(event(number)))
            if gap_s:
                await asyncio.sleep(gap_s)
        await call.send(DONE)

    return script
