"""One hot request, from complete to its single terminal event.

    start --route--> connecting --sent--> waiting --first body byte--> relaying --> finished
               ^          |                  |                            |
               `- retry --+------------------'          error event, or a cut connection

A retry (another replica, or a fresh connection in place of a stale one) is possible until the first body byte goes to
the client; until then the engine's head is held back too. `_finish` is the only way out, and it runs exactly once:
lease, books and client are settled there.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from backends.dialects import Dialect
from gateway import errors, failures
from gateway.accesslog import AccessLine
from gateway.data.auth import authenticate
from gateway.data.body import estimate_tokens, read_fields, replace_model
from gateway.data.framing import BodyRelay, ChunkedBody, LengthBody, ResponseHead, UntilCloseBody, Write
from gateway.data.relay import Relay
from gateway.data.request import Request
from gateway.data.snapshot import EngineRoute, ModelRoute
from gateway.data.upstream import UpstreamConnection
from gateway.errors import GatewayError

_BODILESS = (204, 304)
_MESSAGES = Dialect.MESSAGES


class Client(Protocol):
    """The connection that the request came on."""

    write: Write
    address: str

    def exchange_done(self, can_continue: bool, /) -> None:
        """The answer is complete; the connection takes its next request, or is closed once flushed."""
        ...

    def cut(self, must_reset: bool, /) -> None:
        """End the connection such that the client cannot take what it has for a whole answer."""
        ...


class Exchange:
    """A request in flight."""

    # Defaults live on the class, not in slots: most requests never touch most of them.
    _model: ModelRoute | None = None
    _model_name = ""
    _engine: EngineRoute | None = None
    _connection: UpstreamConnection | None = None
    _dialling: asyncio.Task[None] | None = None
    _body: BodyRelay | None = None
    _payload = b""
    """The encoded request, kept for a retry until the first byte of an answer went out."""
    _held_head = b""
    _is_head_sent = False
    _is_client_slow = False
    _is_done = False
    _is_stream = False
    _status = 0
    _num_tokens = 0
    _num_retries = 0
    _num_seen_bytes = 0
    _tried: tuple[str, ...] = ()
    _key_name = ""
    _why = ""
    _attempt_s = 0.0
    _queue_s = 0.0
    _ttfb_s: float | None = None
    _late: type[errors.EngineTimeout] = errors.ConnectTimeout
    """What it means when `_deadline_s` passes."""

    def __init__(self, relay: Relay, client: Client, request: Request) -> None:
        self._relay = relay
        self._client = client
        self._request = request
        self._timeouts = timeouts = relay.index.snapshot.timeouts
        self._can_continue = request.head.is_keep_alive
        self._deadline_s = self._total_deadline_s = request.started_s + timeouts.total_s

    def start(self) -> None:
        """Check the request, choose a replica, send it on; or answer why not."""
        relay, request = self._relay, self._request
        relay.num_started += 1
        relay.exchanges.add(self)
        try:
            self._key_name = authenticate(relay.index, request.head.token_digest)
            fields = read_fields(request.body)
            self._is_stream = fields.stream is True
            self._model_name = fields.model
            self._model = relay.find_model(fields.model, request.head.path)
            self._num_tokens = estimate_tokens(fields, len(request.body), request.head.path)
            if not self._try_next():
                raise self._model.not_ready()
        except GatewayError as error:
            self._fail(error)
        except Exception as exc:  # noqa: BLE001 - the boundary: a bug of ours ends this request, not the worker
            self._fail(relay.internal_error(exc))

    # What the connection to the engine reports.

    def on_head(self, head: ResponseHead, length: int) -> BodyRelay:
        """Hold the head for the client until body bytes follow; returns the relay for them."""
        body = self._body = self._make_body(head, length)
        self._status = head.status
        self._held_head = self._client_head(head, length)
        return body

    def on_complete(self, can_reuse: bool) -> None:
        """The engine's answer is whole."""
        if self._is_client_slow and self._connection is not None:
            self._connection.transport.resume_reading()
        self._connection = None
        if not self._is_head_sent:
            self._write_first(b"")
        self._finish(self._status, None)

    def on_lost(self, has_answered: bool) -> None:
        """The engine broke the connection: retry while the client has nothing, else end its answer with an error."""
        connection, self._connection = self._connection, None
        assert connection is not None
        is_stale = connection.is_reused and not has_answered
        if is_stale and not self._is_head_sent:
            self._note_retry()
            self._dial()
            return
        self._attempt_failed(errors.EngineReset(f"the engine {self._engine_id} closed the connection"))

    def on_bad_answer(self, error: errors.BadAnswer) -> None:
        """The engine's bytes make no sense."""
        self._connection = None
        self._fail(error)

    # What the client's connection reports.

    def client_gone(self) -> None:
        """The client left: the engine's connection is closed at once, which cancels the work there."""
        if not self._is_done:
            self._drop_attempt()
            self._finish(499, errors.ClientGone("the client closed the connection"))

    def abandon(self, error: GatewayError) -> None:
        """The worker is about to end."""
        if not self._is_done:
            self._can_continue = False
            self._fail(error)

    def pause(self) -> None:
        """The client reads too slowly: stop reading from the engine."""
        self._is_client_slow = True
        if self._connection is not None:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        self._is_client_slow = False
        if self._connection is not None:
            self._connection.transport.resume_reading()

    def check(self, now_s: float) -> None:
        """Enforce the time-outs; whatever moved since the last look counts as moved now."""
        if self._is_done:
            return
        body = self._body
        if self._is_head_sent and body is not None and body.num_bytes != self._num_seen_bytes:
            self._num_seen_bytes = body.num_bytes
            self._deadline_s = now_s + self._timeouts.idle_s
        if now_s >= self._total_deadline_s:
            self._fail(errors.TotalTimeout(f"the request took longer than {self._timeouts.total_s:g} s"))
        elif now_s >= self._deadline_s:
            if self._is_client_slow:
                self._client.cut(False)  # it is the client that does not read
                self.client_gone()
            else:
                self._fail(self._late(f"the engine {self._engine_id} ran into the {self._late.code}"))

    # Attempts.

    @property
    def _engine_id(self) -> str:
        return self._engine.engine.id if self._engine is not None else ""

    def _try_next(self) -> bool:
        """Send the request to a replica that was not tried; returns False when there is none."""
        assert self._model is not None
        chosen = self._relay.choose(self._model, self._tried)
        if chosen is None:
            return False
        self._release_lease()
        self._engine, why = chosen
        self._why = f"{self._why}; {why}" if self._why else why
        engine = self._engine.engine
        self._tried = (*self._tried, engine.id)
        self._relay.counters.add(engine.slot, 1, self._num_tokens)
        body = self._request.body
        if engine.model and engine.model != self._model_name:
            body = replace_model(body, engine.model)
        self._payload = self._encode(self._engine, body)
        connection = self._relay.pool.take(self._engine.address)
        if connection is not None:
            self._send(connection)
        else:
            self._dial()
        return True

    def _encode(self, route: EngineRoute, body: bytes) -> bytes:
        request = self._request
        return b"".join(
            (
                route.request_prefix,
                request.head.target,
                route.request_suffix,
                request.head.engine_lines,
                b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (request.id.encode(), len(body)),
                body,
            )
        )

    def _dial(self) -> None:
        self._attempt_s = self._relay.clock()
        self._late = errors.ConnectTimeout
        self._deadline_s = self._attempt_s + self._timeouts.connect_s
        self._dialling = self._relay.loop.create_task(self._connect())

    async def _connect(self) -> None:
        assert self._engine is not None
        try:
            connection = await self._relay.pool.dial(self._engine.address)
        except OSError as exc:
            self._dialling = None
            reason = exc.strerror or str(exc) or type(exc).__name__
            self._attempt_failed(errors.ConnectFailed(f"the engine {self._engine_id} cannot be reached: {reason}"))
            return
        except Exception as exc:  # noqa: BLE001 - a task's boundary: the request must not wait for what died here
            self._dialling = None
            self._fail(self._relay.internal_error(exc))
            return
        self._dialling = None
        self._relay.metrics.observe_connect(self._engine_id, self._relay.clock() - self._attempt_s)
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        sent_s = self._relay.clock()
        self._queue_s = sent_s - self._request.started_s
        self._late = errors.FirstByteTimeout
        # What is not streamed comes whole: its first byte says nothing before the answer is finished.
        first_byte_s = sent_s + self._timeouts.first_byte_s
        self._deadline_s = first_byte_s if self._is_stream else self._total_deadline_s
        if self._is_client_slow:
            connection.transport.pause_reading()
        connection.send(self, self._payload)

    def _attempt_failed(self, error: GatewayError) -> None:
        """Try another replica where that is safe, else fail."""
        failure = failures.of_error(error)
        if failure.can_retry and not self._is_head_sent and len(self._tried) == 1:
            failed = self._engine_id
            self._body, self._held_head = None, b""
            if self._try_next():
                self._num_retries += 1
                self._relay.metrics.count_retry(failed)
                self._relay.report_trouble(failed, error.code)
                return
        self._fail(error)

    def _note_retry(self) -> None:
        self._num_retries += 1
        self._relay.metrics.count_retry(self._engine_id)

    def _drop_attempt(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # The answer.

    def _make_body(self, head: ResponseHead, length: int) -> BodyRelay:
        if head.status in _BODILESS:
            return LengthBody(self._write_first, 0)
        if length >= 0:
            return LengthBody(self._write_first, length)
        kind = ChunkedBody if head.is_chunked else UntilCloseBody
        is_client_chunked = self._request.head.http_version == "1.1"
        self._can_continue = self._can_continue and is_client_chunked
        return kind(self._write_first, is_event_stream=head.is_event_stream, is_client_chunked=is_client_chunked)

    def _client_head(self, head: ResponseHead, length: int) -> bytes:
        assert self._engine is not None
        if self._relay.is_draining:
            self._can_continue = False
        is_http_1_1 = self._request.head.http_version == "1.1"
        framing = b""
        if length >= 0 and head.status not in _BODILESS:
            framing = b"content-length: %d\r\n" % length
        elif is_http_1_1 and head.status not in _BODILESS:
            framing = b"transfer-encoding: chunked\r\n"
        if not self._can_continue:
            framing += b"connection: close\r\n"
        elif not is_http_1_1:
            framing += b"connection: keep-alive\r\n"
        request_id = self._request.id.encode()
        if self._request.head.dialect is _MESSAGES:
            framing += b"request-id: %b\r\n" % request_id
        return b"%b%b%b%d\r\nx-request-id: %b\r\n\r\n" % (
            head.lines,
            framing,
            self._engine.answer_headers,
            self._queue_s * 1000,
            request_id,
        )

    def _write_first(self, data: bytes) -> None:
        """Send the held head with the first body bytes; from here on the body writes to the client directly."""
        now_s = self._relay.clock()
        if data:
            self._ttfb_s = now_s - self._request.started_s
        self._late = errors.IdleTimeout
        self._deadline_s = now_s + self._timeouts.idle_s
        self._is_head_sent = True
        self._payload = self._request.body = b""  # no retry from here on; a stream may last an hour
        assert self._body is not None
        self._body.write = self._client.write
        self._client.write(self._held_head + data)

    def _fail(self, error: GatewayError) -> None:
        """Answer with `error`, in whichever form the state of the answer still allows."""
        self._drop_attempt()
        if failures.of_error(error).tells_control and self._engine is not None:
            self._relay.report_trouble(self._engine_id, error.code)
        if not self._is_head_sent:
            self._can_continue = self._can_continue and not self._relay.is_draining
            self._client.write(self._render(error))
        else:
            self._can_continue = False
            assert self._body is not None
            if self._body.is_answered(self._request.head.dialect):
                self._body.fail(b"")  # all that an error event could tell is that the engine said no good-bye
                self._finish(self._status, None)
                return
            if not self._body.fail(errors.sse_event(error, self._request.head.dialect, self._request.id)):
                self._client.cut(self._request.head.http_version == "1.0")
        self._finish(error.status, error)

    def _render(self, error: GatewayError) -> bytes:
        extra = {}
        if self._model is not None and self._engine is not None:
            extra["x-forgegate-engine"] = self._engine_id
            extra["x-forgegate-model"] = self._model.model.resolved
            extra["x-forgegate-queue-ms"] = str(int(self._queue_s * 1000))
        request = self._request
        return errors.render(error, request.head.dialect, request.id, is_keep_alive=self._can_continue, extra=extra)

    # The books.

    def _release_lease(self) -> None:
        if self._engine is not None:
            self._relay.counters.add(self._engine.engine.slot, -1, -self._num_tokens)
            self._engine = None

    def _finish(self, status: int, error: GatewayError | None) -> None:
        """The single terminal event."""
        assert not self._is_done, "a request ended twice"
        self._is_done = True
        relay = self._relay
        relay.exchanges.discard(self)
        relay.num_finished += 1
        self._account(status, error)
        self._release_lease()
        self._client.exchange_done(self._can_continue)

    def _account(self, status: int, error: GatewayError | None) -> None:
        request, body = self._request, self._body
        ended_s = self._relay.clock()
        # Milliseconds to the microsecond, written out: `round` takes three times as long, a call of our own as long again.
        self._relay.book(
            AccessLine(
                time=int(time.time() * 1000) / 1000,
                request_id=request.id,
                client=self._client.address,
                method="POST",
                path=request.head.path,
                model=self._model_name,
                resolved=self._model.model.resolved if self._model is not None else "",
                engine=self._engine_id,
                status=status,
                queue_ms=int(self._queue_s * 1e6) / 1e3,
                ttfb_ms=None if self._ttfb_s is None else int(self._ttfb_s * 1e6) / 1e3,
                duration_ms=int((ended_s - request.started_s) * 1e6) / 1e3,
                bytes=body.num_bytes if body is not None else 0,
                retries=self._num_retries,
                why=self._why,
                error=error.code if error is not None else "",
                key=self._key_name,
            )
        )
