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
from gateway.data.auth import is_visible
from gateway.data.body import Fields
from gateway.data.claim import ADAPTER, ENGINE
from gateway.data.conversations import ConversationLog
from gateway.data.heads import HeadTable
from gateway.data.request import Refusal, Request, RequestHead
from gateway.data.session import session_key
from gateway.data.snapshot import EngineRoute, Index, ModelRoute
from gateway.data.tallies import TallySheet
from gateway.data.upstream import Pool
from gateway.data.waitline import WaitLine
from gateway.errors import GatewayError, InternalError
from gateway.metrics import Metrics
from gateway.routing.base import Policy, candidates
from gateway.snapshot import EngineTrouble, Snapshot, ToControl, Uses, Want, WantEngine

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
        report: Callable[[ToControl], None],
        id_prefix: str,
        conversations: ConversationLog | None = None,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.counters = counters
        self.metrics = metrics
        self.access_log = access_log
        self.conversations = conversations
        """None: no conversation is kept."""
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
        self.line = WaitLine(self._ask)
        """Hot requests that wait for their adapter, or for an engine."""
        self.num_started = 0
        self.num_finished = 0
        self._policy = policy
        self._report = report
        self._reported_s: dict[tuple[str, str], float] = {}
        self._uses: dict[str, None] = {}
        """Adapters asked for since control was told, in the order of their last use."""
        self._ended: list[AccessLine] = []
        self._tallies = TallySheet()
        self._id_prefix = id_prefix
        self._last_id = 0

    def swap(self, snapshot: Snapshot) -> None:
        """From now on decide from `snapshot`; requests in flight keep the routes they have, those that wait may go on."""
        self.index = Index(snapshot)
        if self.line:
            self.line.wake(self.index)

    def next_id(self) -> str:
        """Return a request id that no other worker or launch gives."""
        self._last_id += 1
        return f"{self._id_prefix}{self._last_id:x}"

    def find_route(self, fields: Fields, request: Request) -> ModelRoute:
        """Return who answers for the model that the request names, if the path is served there. Raises ModelNotFound, NotFound."""
        name, path = fields.model, request.head.path
        route = self.index.models.get(name) or self._find_adapter(name, fields, request)
        if path not in route.paths:
            raise route.not_served(name, path)
        return route

    def _find_adapter(self, name: str, fields: Fields, request: Request) -> ModelRoute:
        """Resolve an alias or a version. A candidate does not exist but for the admin."""
        index = self.index
        alias = index.aliases.get(name)
        if alias is not None:
            # A request without user or session draws by its own id, which is another one for each.
            return alias.only or alias.pick(session_key(request.head, fields) or request.id.encode())
        route = index.adapters.get(name)
        if route is None or not is_visible(index, route, request.head.token_digest):
            raise index.no_such_model(name)
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
        """Tell control, at most once a second for each engine and reason."""
        now_s = self.clock()
        if now_s - self._reported_s.get((engine_id, reason), -TROUBLE_INTERVAL_S) >= TROUBLE_INTERVAL_S:
            self._reported_s[engine_id, reason] = now_s
            self._report(EngineTrouble(engine_id, reason))

    def note_use(self, adapter: str) -> None:
        """A request asks for `adapter`; control hears of it with the next tick."""
        self._uses.pop(adapter, None)
        self._uses[adapter] = None

    def send_uses(self) -> None:
        """Tell control which adapters were asked for."""
        if self._uses:
            self._report(Uses(tuple(self._uses)))
            self._uses.clear()

    def _ask(self, message: Want | WantEngine) -> None:
        self.send_uses()
        self._report(message)

    def tick(self) -> None:
        """Enforce deadlines. Called several times a second; requests and chunks arm no timers of their own."""
        now_s = self.clock()
        for watched in [*self.exchanges, *self.connections]:
            try:
                watched.check(now_s)
            except Exception as exc:  # noqa: BLE001 - one broken request must not stop the clock of all others
                self.loop.call_exception_handler({"message": "deadline check failed", "exception": exc})
        self.pool.sweep(now_s)
        self.send_uses()
        if tallies := self._tallies.take():
            self._report(tallies)

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
        """Write the records into log, metrics and tallies; called a few times a second."""
        lines, self._ended = self._ended, []
        self.metrics.observe(lines)
        self._tallies.add(lines)
        self.metrics.set_waiting(self.line.num_waiting(ADAPTER), self.line.num_waiting(ENGINE))
        self.access_log.write(lines)
        if self.conversations is not None:
            self.metrics.count_conversations(self.conversations.take_counts())

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
        self.line.check_integrity()
        self.counters.check_integrity()
        self.pool.check_integrity()
