"""The engine's side of a hot request: which replicas it tries, and what it waits for in between.

    _try_next --> taken from the pool or dialled --> sent --> the connection reports to the exchange
       ^   `-- none: _wait for adapter or engine --,     |
       |-------------------------------------------|     `-- failed: _attempt_failed --> _try_elsewhere | _wait | _fail
       |                                           `-- loaded, not recognised yet: _go_ahead --,
       |-- not recognised, or elsewhere: _call_back -------------------------------------------|
       `-- recognised there: _take_up, what it answered meanwhile is read <--------------------'

An attempt holds a lease: its engine's counters are up from its begin to the next attempt, a wait, or the end. One that went ahead
is a wait still, with the wait's deadline: its connection is not read, so that no byte of the answer is in this process.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping

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
    _is_ahead = False
    """Sent to a replica on which the adapter is not recognised yet."""
    _can_go_ahead = False
    """Until that fails: then it waits on as if nothing had been sent."""
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
    def wait_continues(self, route: ModelRoute) -> None: ...

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
        engine, why = chosen
        self._note_choice(engine, why)
        self._begin(engine)
        return True

    def _note_choice(self, route: EngineRoute, why: str) -> None:
        self._why = f"{self._why}; {why}" if self._why else why
        self._tried = (*self._tried, route.engine.id)

    def _begin(self, route: EngineRoute) -> None:
        self._engine = route
        self._relay.counters.add(route.engine.slot, 1, self._num_tokens)
        body = self._request.body
        served_name = route.served_name
        if served_name and served_name != self._model_name:
            body = replace_model(body, served_name)
        self._payload = self._encode(route, body)
        connection = self._relay.pool.take(route.address)
        if connection is not None:
            self._send(connection)
        else:
            self._dial()

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
        if not self._is_ahead:
            self._bound_connect()
        self._dialling = self._relay.loop.create_task(self._connect())

    def _bound_connect(self) -> None:
        self._late = errors.ConnectTimeout
        self._deadline_s = self._relay.clock() + self._timeouts.connect_s

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
        self._queue_s = self._relay.clock() - self._request.started_s
        if not self._is_ahead:
            self._bound_first_byte()
        if self._is_client_slow or self._is_ahead:
            connection.transport.pause_reading()
        connection.send(self, self._payload)

    def _bound_first_byte(self) -> None:
        self._late = errors.FirstByteTimeout
        # What is not streamed comes whole: its first byte says nothing before the answer is finished.
        first_byte_s = self._relay.clock() + self._timeouts.first_byte_s
        self._deadline_s = first_byte_s if self._is_stream else self._total_deadline_s

    def _follow(self, route: ModelRoute) -> None:
        """While it waits: to where the adapter is being recognised, and back from where it is not any more."""
        if self._is_ahead and not self._is_among(route.unproven):
            self._call_back()
        if route.unproven and self._can_go_ahead and not self._is_ahead and self._request.head.path in route.paths:
            self._go_ahead(route)

    def _go_ahead(self, route: ModelRoute) -> None:
        """Control loads a version on one replica after the other: there is no choice."""
        self._is_ahead = True
        self._route = route
        self._begin(next(iter(route.unproven.values())))

    def _take_up(self, route: ModelRoute) -> bool:
        """Read the answer of where it went ahead to, if the adapter was recognised just there; else it is called back."""
        if not self._is_ahead or not self._is_among(route.routes):
            self._call_back()
            return False
        self._is_ahead = False
        self._engine = route.routes[self._engine_id]
        self._note_choice(self._engine, "sent ahead")
        if self._connection is None:
            self._bound_connect()
            return True
        self._bound_first_byte()
        transport = self._connection.transport
        if not self._is_client_slow and not transport.is_closing():
            transport.resume_reading()
        return True

    def _call_back(self) -> None:
        """Nobody hears what it was answered where it went ahead to; its wait is another matter."""
        if self._is_ahead:
            self._is_ahead = False
            self._drop_connection()
            self._release_lease()
            self._payload = b""

    def _is_among(self, routes: Mapping[str, EngineRoute]) -> bool:
        """Whether the replica that it was sent to is, in the same launch."""
        there = routes.get(self._engine_id)
        return there is not None and self._engine is not None and there.address == self._engine.address

    def _attempt_failed(self, error: GatewayError) -> None:
        """Try another replica where that is safe, or wait for one to load the adapter, else fail."""
        if self._is_ahead:
            self._relay.report_trouble(self._engine_id, error.code)
            self._can_go_ahead = False
            self._call_back()
            return
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
        index, claim = self._relay.index, self._claim
        self._deadline_s = claim.enter(index, self._tried, self._relay.clock())
        self._release_lease()
        self._payload = b""
        self._can_go_ahead = True
        if (route := claim.route(index)) is not None:
            self._follow(route)

    def _leave_line(self) -> None:
        if self._claim is not None:
            self._claim.leave(self._relay.clock())

    def _note_retry(self) -> None:
        self._num_retries += 1
        self._relay.metrics.count_retry(self._engine_id)

    def _drop_attempt(self) -> None:
        self._leave_line()
        self._call_back()
        self._drop_connection()

    def _drop_connection(self) -> None:
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
