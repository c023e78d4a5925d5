"""What all connections of one worker share, and the questions that each hot request asks of it.

The relay holds the newest index, the pool, the policy and the books. An exchange (`gateway.data.exchange`) borrows them
for one request; `account` is called exactly once for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Protocol

from gateway.accesslog import AccessLine, AccessLog
from gateway.counters import Counters
from gateway.data.heads import HeadTable
from gateway.data.request import Refusal, RequestHead
from gateway.data.snapshot import EngineRoute, Index, ModelRoute
from gateway.data.upstream import Pool
from gateway.errors import GatewayError, InternalError, ModelNotFound, NotFound
from gateway.metrics import Metrics
from gateway.routing.base import Policy, candidates
from gateway.snapshot import EngineTrouble, Snapshot

TROUBLE_INTERVAL_S = 1.0
"""Control probes an engine at once when it hears of trouble; once a second is often enough."""

MAX_UNBOOKED = 4096
"""Records of ended requests kept until the next flush; beyond, one is due at once."""


class Watched(Protocol):
    """Something with a deadline of its own, looked at on every tick."""

    def check(self, now_s: float, /) -> None:
        """End what has taken too long."""
        ...


class Running(Watched, Protocol):
    """A request in flight."""

    def abandon(self, error: GatewayError, /) -> None:
        """End it with `error`."""
        ...


class Relay:
    """The shared part of the data path of one worker."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        counters: Counters,
        policy: Policy,
        metrics: Metrics,
        access_log: AccessLog,
        pool: Pool,
        report: Callable[[EngineTrouble], None],
        id_prefix: str,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.counters = counters
        self.metrics = metrics
        self.access_log = access_log
        self.pool = pool
        self.index = Index(Snapshot(version=-1))
        """No connection is taken before the first real one is here."""
        self.heads: HeadTable[RequestHead] = HeadTable()
        """Heads of hot requests."""
        self.is_draining = False
        self.exchanges: set[Running] = set()
        """Requests in flight, hot ones."""
        self.connections: set[Watched] = set()
        """Client connections, busy or idle."""
        self.num_started = 0
        self.num_finished = 0
        self._policy = policy
        self._report = report
        self._reported_s: dict[str, float] = {}
        self._ended: list[AccessLine] = []
        self._id_prefix = id_prefix
        self._last_id = 0

    def swap(self, snapshot: Snapshot) -> None:
        """From now on decide from `snapshot`; requests in flight keep the routes they have."""
        self.index = Index(snapshot)

    def next_id(self) -> str:
        """Return a request id that no other worker or launch gives."""
        self._last_id += 1
        return f"{self._id_prefix}{self._last_id:x}"

    def find_model(self, name: str, path: str) -> ModelRoute:
        """Return the model, if it serves `path`. Raises ModelNotFound, NotFound."""
        index = self.index
        route = index.models.get(name)
        if route is None:
            known = ", ".join(sorted(index.models)) or "none"
            raise ModelNotFound(f"the model {name!r} does not exist; there are: {known}", param="model")
        if path not in route.paths:
            has = ", ".join(sorted(route.paths)) or "nothing that clients could ask for"
            raise NotFound(f"the model {name!r} does not serve {path} (it serves: {has})", param="model")
        return route

    def choose(self, route: ModelRoute, excluded: Collection[str]) -> tuple[EngineRoute, str] | None:
        """Return a ready replica outside `excluded` and why it was chosen, or None when there is none."""
        if route.only is not None and not excluded:
            return route.only, "only ready replica"
        open_to_choice = candidates(route.ready, self.counters, excluded)
        if not open_to_choice:
            return None
        decision = self._policy.choose(open_to_choice)
        return route.routes[decision.engine.id], decision.why

    def report_trouble(self, engine_id: str, reason: str) -> None:
        """Tell control, at most once a second for each engine."""
        now_s = self.clock()
        if now_s - self._reported_s.get(engine_id, -TROUBLE_INTERVAL_S) >= TROUBLE_INTERVAL_S:
            self._reported_s[engine_id] = now_s
            self._report(EngineTrouble(engine_id, reason))

    def tick(self) -> None:
        """Enforce deadlines. Called several times a second; requests and chunks arm no timers of their own."""
        now_s = self.clock()
        for watched in [*self.exchanges, *self.connections]:
            try:
                watched.check(now_s)
            except Exception as exc:  # noqa: BLE001 - one broken request must not stop the clock of all others
                self.loop.call_exception_handler({"message": "deadline check failed", "exception": exc})
        self.pool.sweep(now_s)

    def abandon(self, error: GatewayError) -> None:
        """End every request in flight with `error`: a drain's grace is over."""
        for exchange in list(self.exchanges):
            exchange.abandon(error)

    def book(self, line: AccessLine) -> None:
        """Take the record of an ended request: the only thing that a request does for log and metrics."""
        self._ended.append(line)
        if len(self._ended) >= MAX_UNBOOKED:
            self.flush()

    def flush(self) -> None:
        """Write the records into log and metrics; called a few times a second."""
        lines, self._ended = self._ended, []
        self.metrics.observe(lines)
        self.access_log.write(lines)

    def account_refusal(self, refusal: Refusal, address: str, request_id: str) -> None:
        """Book what was refused before it was a whole request."""
        self.book(
            AccessLine(
                time=time.time(),
                request_id=request_id,
                client=address,
                method=refusal.method,
                path=refusal.path,
                status=refusal.error.status,
                duration_ms=0.0,
                error=refusal.error.code,
            )
        )

    def internal_error(self, exc: Exception) -> InternalError:
        """Log a bug with its traceback; returns what the client is told."""
        self.loop.call_exception_handler({"message": "request failed inside the gateway", "exception": exc})
        return InternalError("the gateway failed while handling this request; its log has the details")

    def check_integrity(self) -> None:
        """Assert that an idle worker owes nothing: no request, no lease, no stray connection."""
        assert not self.exchanges, f"{len(self.exchanges)} exchanges left"
        assert self.num_started == self.num_finished, f"{self.num_started} started, {self.num_finished} finished"
        self.counters.check_integrity()
        self.pool.check_integrity()
