"""The engine's side of a hot request: which replicas it tries, and what it waits for in between.

    _try_next --> taken from the pool or dialled --> sent --> the connection reports to the exchange
       ^   `-- none: _wait for adapter or engine --,     |
       `-------------------------------------------'     `-- failed: _attempt_failed --> _try_elsewhere | _wait | _fail

An attempt holds a lease: its engine's counters are up from `_try_next` to the next attempt, a wait, or the end.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from gateway import errors, failures
from gateway.data.body import replace_model
from gateway.data.claim import MAX_ABSENCES, AdapterClaim, Claim, EngineClaim
from gateway.data.framing import BodyRelay, ResponseHead
from gateway.data.relay import Relay
from gateway.data.request import Client, Request
from gateway.data.snapshot import EngineRoute, ModelRoute
from gateway.data.upstream import UpstreamConnection
from gateway.errors import GatewayError


class Attempts(ABC):
    """What `gateway.data.exchange.Exchange` is made on."""

    # Defaults live on the class, not in slots: most requests never touch most of them.
    _route: ModelRoute | None = None
    _model_name = ""
    _claim: Claim | None = None
    """Of a request for an adapter, and of one that has to wait for an engine."""
    _engine: EngineRoute | None = None
    _connection: UpstreamConnection | None = None
    _dialling: asyncio.Task[None] | None = None
    _body: BodyRelay | None = None
    _payload = b""
    """The encoded request, kept for a retry until the first byte of an answer went out."""
    _held_head = b""
    _is_head_sent = False
    _is_client_slow = False
    _is_stream = False
    _num_tokens = 0
    _num_retries = 0
    _num_losses = 0
    _tried: tuple[str, ...] = ()
    _why = ""
    _attempt_s = 0.0
    _queue_s = 0.0
    _late: type[errors.EngineTimeout] = errors.ConnectTimeout
    """What it means when `_deadline_s` passes."""

    def __init__(self, relay: Relay, client: Client, request: Request) -> None:
        self._relay = relay
        self._client = client
        self._request = request
        self._timeouts = timeouts = relay.index.snapshot.timeouts
        self._can_continue = request.head.is_keep_alive
        self._deadline_s = self._total_deadline_s = request.started_s + timeouts.total_s

    @abstractmethod
    def on_head(self, head: ResponseHead, length: int) -> BodyRelay:
        """See `Receiver`, as for the next three."""

    @abstractmethod
    def on_complete(self, can_reuse: bool) -> None: ...

    @abstractmethod
    def on_lost(self, has_answered: bool) -> None: ...

    @abstractmethod
    def on_bad_answer(self, error: errors.EngineFailed) -> None: ...

    @abstractmethod
    def wait_answered(self, route: ModelRoute) -> None:
        """See `Waiter`, as for the next one."""

    @abstractmethod
    def wait_refused(self, error: GatewayError) -> None: ...

    @abstractmethod
    def _fail(self, error: GatewayError) -> None:
        """End the request with `error`."""

    @property
    def _engine_id(self) -> str:
        return self._engine.engine.id if self._engine is not None else ""

    def _try_next(self) -> bool:
        """Send the request to a replica that was not tried; returns False when there is none."""
        assert self._route is not None
        chosen = self._relay.choose(self._route, self._tried)
        if chosen is None:
            return False
        if self._engine is not None:
            self._release_lease()
        self._engine, why = chosen
        self._why = f"{self._why}; {why}" if self._why else why
        engine = self._engine.engine
        self._tried = (*self._tried, engine.id)
        self._relay.counters.add(engine.slot, 1, self._num_tokens)
        body = self._request.body
        served_name = self._engine.served_name
        if served_name and served_name != self._model_name:
            body = replace_model(body, served_name)
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
        """Try another replica where that is safe, or wait for one to load the adapter, else fail."""
        failure = failures.of_error(error)
        if not failure.can_retry or self._is_head_sent or not self._may_try_again(error):
            self._fail(error)
            return
        failed = self._engine_id
        self._relay.report_trouble(failed, error.code)
        self._body, self._held_head = None, b""
        try:
            if not self._try_elsewhere(error):
                self._wait(None if isinstance(self._claim, AdapterClaim) else error)
        except GatewayError as final:
            self._fail(final)
            return
        self._num_retries += 1
        self._relay.metrics.count_retry(failed)

    def _may_try_again(self, error: GatewayError) -> bool:
        """Bounds the attempts: a request that ends engines must not end them all, and no adapter is chased for ever."""
        if isinstance(self._claim, AdapterClaim) and isinstance(error, errors.AdapterAbsent):
            self._claim.num_absences += 1
            return self._claim.num_absences <= MAX_ABSENCES
        self._num_losses += 1
        return self._num_losses == 1

    def _try_elsewhere(self, error: GatewayError) -> bool:
        """Like `_try_next`, among the replicas that are ready by now, and hold the adapter if it is one that is asked for."""
        assert self._route is not None
        index, claim = self._relay.index, self._claim
        newest = claim.route(index) if claim is not None else index.models.get(self._route.model.name)
        if newest is not None and newest is not self._route:
            if isinstance(error, errors.AdapterAbsent):
                self._tried = ()  # what it says of that replica too may be newer than the denial
            self._route = newest
        return self._try_next()

    def _wait(self, refusal: GatewayError | None) -> None:
        """Wait until a replica is ready, which holds the adapter if it is one that is asked for. Raises `refusal`, or NoEngineReady."""
        if refusal is not None:
            raise refusal
        if self._claim is None:
            assert self._route is not None
            self._claim = EngineClaim(self._route.model.name, self._relay.line, self)
        self._deadline_s = self._claim.enter(self._relay.index, self._tried, self._relay.clock())
        self._release_lease()
        self._payload = b""

    def _leave_line(self) -> None:
        if self._claim is not None:
            self._claim.leave(self._relay.clock())

    def _note_retry(self) -> None:
        self._num_retries += 1
        self._relay.metrics.count_retry(self._engine_id)

    def _drop_attempt(self) -> None:
        self._leave_line()
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _release_lease(self) -> None:
        if self._engine is not None:
            self._relay.counters.add(self._engine.engine.slot, -1, -self._num_tokens)
            self._engine = None
