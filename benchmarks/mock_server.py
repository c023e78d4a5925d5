"""`forgegate bench mock`: a fast, programmable OpenAI-compatible stub engine at asyncio-protocol level.

It obeys the contract of a real engine: `/v1/chat/completions` and `/v1/completions` (streamed or not, max_tokens,
min_tokens, ignore_eos, include_usage), `/v1/embeddings`, `/v1/models`, `/health`, `/metrics`, OpenAI errors, a bearer token from
FORGEGATE_ENGINE_SECRET on all but `/health`, 429 when its queue is full, a drain on SIGTERM. On top: behaviour per
server and per request (mock_behaviour.py), `mock.sent_s` in every chunk (CLOCK_MONOTONIC seconds: comparable on one
host), and `GET /mock/stats`, which counts what it saw, such as clients that went away, and holds the last request.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httptools
import orjson

from benchmarks import mock_wire
from benchmarks.mock_answer import Answer
from benchmarks.mock_behaviour import Behaviour, Ending, draw_fate
from benchmarks.mock_request import Completion, Kind, RefusedError, read_completion
from benchmarks.mock_wire import EmbeddingPen, Pen

_KINDS = {kind.value: kind for kind in Kind}
DRAIN_S = 10.0
CAPABILITIES = ("chat", "completions", "embeddings")
"""As the model list has them, by the names of this gateway."""


@dataclass(slots=True)
class Stats:
    """What the mock did and saw."""

    num_connections: int = 0
    num_requests: int = 0
    num_refused: int = 0
    """Answered with 4xx before anything else."""
    num_finished: int = 0
    num_errors: int = 0
    """Made to fail on purpose by an error status, an error event or a disconnect."""
    num_disconnects_seen: int = 0
    """Clients that went away before their answer was over."""
    last_disconnect_s: float | None = None
    """Monotonic."""
    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 0
    num_chunks: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0


class MockEngine:
    """One server. `num_slots` requests run at once (0: any number), the next `max_waiting` wait, the rest get 429."""

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        models: Sequence[str] = ("mock",),
        seed: int = 0,
        num_slots: int = 0,
        max_waiting: int | None = None,
        secret: str | None = None,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.models = tuple(models)
        self.stats = Stats()
        self.rng = random.Random(seed)
        self.last_request: dict[str, Any] | None = None
        self.created = int(time.time())
        self.connections: set[Connection] = set()
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._secret = f"Bearer {secret}" if secret else None
        self._queue: deque[Answer] = deque()
        self._server: asyncio.Server | None = None
        self._is_idle = asyncio.Event()
        self.port = 0
        self.host = ""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        self.host, self.port = host, self._server.sockets[0].getsockname()[1]

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop accepting, give running answers `drain_s`, close what is left."""
        if self._server is not None:
            self._server.close()
        if drain_s and (self.stats.num_running or self.stats.num_waiting):
            self._is_idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_idle.wait(), drain_s)
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> "MockEngine":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Slots: who may run. One place counts up, one counts down.

    def admit(self, answer: Answer) -> None:
        """Start it, or let it wait; raises RefusedError with 429."""
        if not self._num_slots or self.stats.num_running < self._num_slots:
            self._start(answer)
        elif self._max_waiting is None or len(self._queue) < self._max_waiting:
            self._queue.append(answer)
            self.stats.num_waiting += 1
        else:
            raise RefusedError(429, "the queue is full", code="queue_full")

    def release(self, answer: Answer) -> None:
        """An admitted answer is over, or its client has gone."""
        if not answer.is_started:
            self._queue.remove(answer)
            self.stats.num_waiting -= 1
            return
        self.stats.num_running -= 1
        if self._queue:
            self.stats.num_waiting -= 1
            self._start(self._queue.popleft())
        elif not self.stats.num_running:
            self._is_idle.set()

    def _start(self, answer: Answer) -> None:
        self.stats.num_running += 1
        self.stats.max_running = max(self.stats.max_running, self.stats.num_running)
        answer.start()

    def count_chunk(self, num_tokens: int) -> None:
        """A chunk was written."""
        self.stats.num_chunks += 1
        self.stats.generation_tokens += num_tokens

    def is_allowed(self, path: str, authorization: str | None) -> bool:
        """The launch's secret guards everything but the health check."""
        return self._secret is None or path == "/health" or authorization == self._secret

    # Plain answers

    def plain(self, path: str) -> tuple[bytes, str] | None:
        """Body and content type of a GET; None when there is no such path."""
        make = _PLAIN_PATHS.get(path)
        return make(self) if make else None

    def _health(self) -> tuple[bytes, str]:
        return orjson.dumps({"status": "ok", "backend": "mock", "model": self.models[0]}), "application/json"

    def _models(self) -> tuple[bytes, str]:
        frame = {"object": "model", "created": self.created, "owned_by": "forgegate-mock", "max_model_len": 1 << 20}
        data = [{"id": name, **frame, "capabilities": CAPABILITIES, "meta": {}} for name in self.models]
        return orjson.dumps({"object": "list", "data": data}), "application/json"

    def _stats(self) -> tuple[bytes, str]:
        return orjson.dumps({**asdict(self.stats), "last_request": self.last_request}), "application/json"

    def _metrics(self) -> tuple[bytes, str]:
        stats = self.stats
        usage = stats.num_running / self._num_slots if self._num_slots else 0.0
        rows = (
            ("num_requests_running", "gauge", stats.num_running),
            ("num_requests_waiting", "gauge", stats.num_waiting),
            ("kv_cache_usage_ratio", "gauge", usage),
            ("prefix_cache_hit_tokens_total", "counter", 0),
            ("prompt_tokens_total", "counter", stats.prompt_tokens),
            ("generation_tokens_total", "counter", stats.generation_tokens),
        )
        lines = [
            f"# TYPE forgegate_engine_{name} {kind}\nforgegate_engine_{name} {value}\n" for name, kind, value in rows
        ]
        return "".join(lines).encode(), "text/plain; version=0.0.4; charset=utf-8"


_PLAIN_PATHS: dict[str, Callable[[MockEngine], tuple[bytes, str]]] = {
    "/health": MockEngine._health,
    "/v1/models": MockEngine._models,
    "/metrics": MockEngine._metrics,
    "/mock/stats": MockEngine._stats,
}


class Connection(asyncio.Protocol):
    """One client. Requests of a pipeline are answered one after the other."""

    def __init__(self, engine: MockEngine) -> None:
        self._engine = engine
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._backlog: deque[tuple[str, str, dict[str, str], bytes, bool]] = deque()
        self._answer: Answer | None = None
        self._is_last = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not derive from asyncio's
        self._engine.stats.num_connections += 1
        self._engine.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._is_last = True
            self._refuse(RefusedError(400, f"not HTTP/1.1: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._engine.connections.discard(self)
        self._backlog.clear()
        if self._answer is not None:
            self._engine.stats.num_disconnects_seen += 1
            self._engine.stats.last_disconnect_s = time.monotonic()
            self._release()

    def pause_writing(self) -> None:
        if self._answer is not None:
            self._answer.block()

    def resume_writing(self) -> None:
        if self._answer is not None:
            self._answer.unblock()

    # httptools.HttpRequestParser

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        path = self._url.partition(b"?")[0].decode("latin-1")
        is_last = not self._parser.should_keep_alive()
        self._backlog.append((method, path, self._headers, b"".join(self._body), is_last))
        if self._answer is None and len(self._backlog) == 1:
            self._next()

    # Outlet

    def write(self, data: bytes) -> None:
        """Bytes of the running answer."""
        if self._transport is not None:
            self._transport.write(data)

    def finished(self, *, is_closing: bool) -> None:
        """The running answer is over."""
        self._engine.stats.num_finished += 1
        self._engine.stats.num_errors += is_closing
        self._release()
        self._is_last = self._is_last or is_closing
        self._turn()

    @property
    def closing_header(self) -> bytes:
        """For an answer after which the connection closes."""
        return b"connection: close\r\n" if self._is_last else b""

    def close(self) -> None:
        """The server stops: what runs here ends without counting as a disconnect that was seen."""
        if self._answer is not None:
            self._release()
        if self._transport is not None:
            self._transport.close()

    def _release(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.cancel()
            self._engine.release(answer)

    def _turn(self) -> None:
        """After an answer: close, or take the next request of the pipeline."""
        if self._is_last and self._transport is not None:
            self._transport.close()
        elif self._backlog:
            self._next()

    def _next(self) -> None:
        method, path, headers, body, self._is_last = self._backlog.popleft()
        try:
            self._serve(method, path, headers, body)
        except RefusedError as exc:
            self._refuse(exc)

    def _serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        engine = self._engine
        if not engine.is_allowed(path, headers.get("authorization")):
            raise RefusedError(401, "a bearer token is missing or wrong", code="invalid_api_key")
        if path in _KINDS:
            if method != "POST":
                raise RefusedError(405, f"{path} takes POST")
            engine.last_request = {"path": path, "headers": headers, "body": body.decode("utf-8", "replace")}
            self._complete(path, headers, body)
            return
        found = engine.plain(path) if method in ("GET", "HEAD") else None
        if found is None:
            raise RefusedError(404, f"there is no {method} {path}")
        self.write(mock_wire.response(200, found[0], is_last=self._is_last, content_type=found[1]))
        self._turn()

    def _complete(self, path: str, headers: dict[str, str], body: bytes) -> None:
        engine = self._engine
        completion = read_completion(
            body,
            headers.get("x-mock"),
            kind=_KINDS[path],
            models=engine.models,
            behaviour=engine.behaviour,
        )
        engine.stats.num_requests += 1
        fate = draw_fate(completion.behaviour, completion.wanted, engine.rng)
        if fate.ending is Ending.ERROR:
            engine.stats.num_errors += 1
            error = mock_wire.error_body("the mock was told to fail", "server_error", code="mock_error")
            self.write(mock_wire.response(completion.behaviour.error_status, error, is_last=self._is_last))
            self._turn()
            return
        number = engine.stats.num_requests
        self._answer = Answer(
            completion, fate, self._pen(completion, number), number, self, engine.rng, engine.count_chunk
        )
        try:
            engine.admit(self._answer)
        except RefusedError:
            self._answer = None
            raise
        engine.stats.prompt_tokens += completion.prompt_tokens

    def _pen(self, completion: Completion, number: int) -> Pen:
        is_chat = completion.kind is Kind.CHAT
        identity = f"{'chatcmpl' if is_chat else 'cmpl'}-mock-{number}"
        common = (is_chat, identity, completion.model, self._engine.created, completion.prompt_tokens)
        is_text = completion.kind is not Kind.EMBEDDINGS
        return Pen(*common) if is_text else EmbeddingPen(*common, completion.num_inputs)

    def _refuse(self, refused: RefusedError) -> None:
        self._engine.stats.num_refused += 1
        kind = "rate_limit_error" if refused.status == 429 else "invalid_request_error"
        body = mock_wire.error_body(str(refused), kind, refused.param, refused.code)
        extra = "retry-after: 1\r\n" if refused.status == 429 else ""
        self.write(mock_wire.response(refused.status, body, is_last=self._is_last, extra=extra))
        self._turn()


async def serve(engine: MockEngine, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM; a second one stops at once. Raises OSError when the port cannot be had."""
    stopping, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: (at_once if stopping.is_set() else stopping).set())
    await engine.start(host, port)
    announce(f"mock engine ready on {engine.url} (models: {', '.join(engine.models)})")
    await stopping.wait()
    stop = asyncio.ensure_future(engine.stop(DRAIN_S))
    kill = asyncio.ensure_future(at_once.wait())
    await asyncio.wait((stop, kill), return_when=asyncio.FIRST_COMPLETED)
    kill.cancel()
    stop.cancel()


def secret_from_environment() -> str | None:
    """The bearer token that a supervisor gave to this launch."""
    return os.environ.get("FORGEGATE_ENGINE_SECRET") or None
