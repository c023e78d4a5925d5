"""One hot request, from complete to its single terminal event.

    start --route--> connecting --sent--> waiting --first body byte--> relaying --> finished
      |   ^  ^            |                  |                            |
      |   |  `-- retry ---+------------------'          error event, or a cut connection
      `-> waiting in line <------ retry -----'
               sent ahead: as from `connecting` on, but nothing of the answer is read before the wait is over

A retry (another replica, or a fresh connection in place of a stale one) is possible until the first body byte goes to
the client; until then the engine's head is held back too. In line wait a request for an adapter that no ready replica holds,
one whose engine answers 404 because it does not hold the adapter any more, and one whose model has engines that start on
demand and none that is up. `_finish` is the only way out, and it runs exactly once: lease, books and client are settled there.
"""

from __future__ import annotations

import time

from gateway import errors, failures
from gateway.accesslog import AccessLine
from gateway.data.answer import BODILESS, HeldAnswer, head_bytes, make_body
from gateway.data.attempts import Attempts
from gateway.data.auth import authenticate
from gateway.data.body import estimate_tokens, read_fields
from gateway.data.claim import AdapterClaim
from gateway.data.complaints import ErrorEvent, is_death, is_denial
from gateway.data.conversations import Tap
from gateway.data.framing import BodyRelay, ResponseHead
from gateway.data.snapshot import ModelRoute
from gateway.errors import GatewayError


class Exchange(Attempts):
    """A request in flight."""

    _held: HeldAnswer | None = None
    _is_done = False
    _status = 0
    _num_seen_bytes = 0
    _key_name = ""
    _ttfb_s: float | None = None
    _tap: Tap | None = None
    """Of a request that the log of conversations keeps."""

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
            self._route = route = relay.find_route(fields, request)
            self._num_tokens = estimate_tokens(fields, len(request.body), request.head.path)
            if route.adapter is not None:
                self._claim = AdapterClaim(route.adapter.name, relay.line, self)
                relay.note_use(route.adapter.name)
            if relay.conversations is not None:
                self._tap = relay.conversations.tap(request, fields, route)
            if not self._try_next():
                self._wait(route.hopeless())
        except GatewayError as error:
            self._fail(error)
        except Exception as exc:  # noqa: BLE001 - the boundary: a bug of ours ends this request, not the worker
            self._fail(relay.internal_error(exc))

    # What the connection to the engine reports.

    def on_head(self, head: ResponseHead, length: int) -> BodyRelay:
        """Hold the head for the client until body bytes follow; returns the relay for them."""
        status = self._status = head.status
        assert self._engine is not None
        if status != 200 and self._is_judged(status):
            held = self._held = HeldAnswer(head, length)
            self._body = held.body
            return held.body
        lines = self._engine.answer_headers
        if self._claim is not None:
            lines = self._claim.header_line() + lines
        is_http_1_1 = self._request.head.http_version == "1.1"
        if self._relay.is_draining or (length < 0 and not is_http_1_1 and status not in BODILESS):
            self._can_continue = False
        body = self._body = make_body(head, length, self._write_first, is_http_1_1, self._request.head.dialect)
        self._held_head = head_bytes(head, length, self._request, lines, self._queue_s, self._can_continue)
        return body

    def on_complete(self, can_reuse: bool) -> None:
        """The engine's answer is whole."""
        if self._is_client_slow and self._connection is not None:
            self._connection.transport.resume_reading()
        self._connection = None
        if self._held is not None:
            self._judge(self._held)
            return
        if not self._is_head_sent:
            self._write_first(b"")
        self._finish(self._status, None)

    def on_lost(self, has_answered: bool) -> None:
        """The engine broke the connection: retry while the client has nothing, else end its answer with an error."""
        connection, self._connection = self._connection, None
        assert connection is not None
        self._held = None
        is_stale = connection.is_reused and not has_answered
        if is_stale and not self._is_head_sent:
            self._note_retry()
            self._dial()
            return
        self._attempt_failed(errors.EngineReset(f"the engine {self._engine_id} closed the connection"))

    def on_bad_answer(self, error: errors.EngineFailed) -> None:
        """The engine's bytes make no sense, or end a stream with an error."""
        self._connection, self._held = None, None
        if isinstance(error, errors.StreamFailed):
            self._stream_failed(error)
        else:
            self._fail(error)

    # What the line reports.

    def wait_answered(self, route: ModelRoute) -> None:
        """A replica is ready: go on."""
        self._leave_line()
        self._route = route
        path = self._request.head.path
        if path not in route.paths:  # before its first start, an engine's kind alone said what it serves
            self._fail(route.not_served(self._model_name, path))
            return
        try:
            if not self._take_up(route) and not self._try_next():
                self._tried = ()  # all have failed this request before; how often it tries is bounded
                self._try_next()
        except Exception as exc:  # noqa: BLE001 - as in `start`; the others in line must be woken too
            self._fail(self._relay.internal_error(exc))

    def wait_refused(self, error: GatewayError) -> None:
        """None will."""
        self._fail(error)

    def wait_continues(self, route: ModelRoute) -> None:
        """None is yet; but it may have been loaded where it is not recognised yet, or be gone from there."""
        try:
            self._follow(route)
        except Exception as exc:  # noqa: BLE001 - as in `start`; the others in line must be woken too
            self._fail(self._relay.internal_error(exc))

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
        if self._connection is not None and not self._is_ahead:
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
            if self._claim is not None and self._claim.is_waiting:
                self._fail(self._claim.too_late(self._relay.index))
            elif self._is_client_slow:
                self._client.cut(False)  # it is the client that does not read
                self.client_gone()
            else:
                self._fail(self._late(f"the engine {self._engine_id} ran into the {self._late.code}"))

    # The answer.

    def _is_judged(self, status: int) -> bool:
        """Whether what the engine says with this status may mean that another one has to answer."""
        return status == 500 or (status == 404 and isinstance(self._claim, AdapterClaim))

    def _judge(self, held: HeldAnswer) -> None:
        """Pass on an answer that was held, unless it means that the adapter is not there, or the engine dead."""
        self._held = None
        content, claim = held.content(), self._claim
        assert self._engine is not None
        if self._status == 500 and is_death(content):
            self._attempt_failed(self._death())
            return
        if self._status == 404 and claim is not None and is_denial(content, claim.name):
            self._attempt_failed(errors.AdapterAbsent(f"the engine {self._engine_id} does not hold {claim.name}"))
            return
        if self._relay.is_draining:
            self._can_continue = False
        lines = self._engine.answer_headers
        if claim is not None:
            lines = claim.header_line() + lines
        self._held_head = head_bytes(held.head, len(content), self._request, lines, self._queue_s, self._can_continue)
        self._write_first(content)
        self._finish(self._status, None)

    def _stream_failed(self, error: errors.StreamFailed) -> None:
        """The engine ends a stream with an error: pass its event on as the last one, unless it means that the engine is dead."""
        said = ErrorEvent(error.event)
        if said.is_death:
            self._attempt_failed(self._death())
            return
        is_its_fault = said.status >= 500
        if is_its_fault:
            self._relay.report_trouble(self._engine_id, error.code)
        if not self._is_head_sent:
            self._write_first(b"")
        assert self._body is not None
        self._body.fail(error.event)
        self._finish(said.status, error if is_its_fault else None)

    def _death(self) -> errors.EngineDied:
        return errors.EngineDied(f"the engine {self._engine_id} died before its answer was complete")

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
        write = self._client.write
        self._body.write = write if self._tap is None else self._tap.writing(write, data)
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
        if self._route is not None and self._engine is not None:
            extra["x-forgegate-engine"] = self._engine_id
            extra["x-forgegate-model"] = self._route.resolved
            extra["x-forgegate-queue-ms"] = str(int(self._queue_s * 1000))
        elif self._claim is not None and self._route is not None:
            extra["x-forgegate-model"] = self._route.resolved
        if self._claim is not None and self._claim.waited_s is not None:
            extra[self._claim.header] = str(int(self._claim.waited_s * 1000))
        request = self._request
        return errors.render(error, request.head.dialect, request.id, is_keep_alive=self._can_continue, extra=extra)

    # The books.

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
        request, body, route, engine = self._request, self._body, self._route, self._engine
        ended_s = self._relay.clock()
        # Milliseconds to the microsecond, written out: `round` takes three times as long, a call of our own as long again.
        line = AccessLine(
            time=int(time.time() * 1000) / 1000,
            request_id=request.id,
            client=self._client.address,
            method="POST",
            path=request.head.path,
            model=self._model_name,
            resolved=route.resolved if route is not None else "",
            engine=engine.engine.id if engine is not None else "",
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
        if self._claim is not None and route is not None:
            line = self._claim.noted(line, route)
        self._relay.book(line)
        if self._tap is not None and self._relay.conversations is not None:
            self._relay.conversations.put(self._tap, line)
