"""What a request may have to wait for, and its waits for it: an adapter on some engine, or an engine of the model.

AdapterClaim   of every request for a version of an adapter, which it stays bound to
EngineClaim    of one that found no engine of its model ready, and one that starts on demand; rare, so made only then
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import ClassVar, Protocol

from msgspec.structs import replace

from gateway.accesslog import AccessLine
from gateway.data.snapshot import Index, ModelRoute
from gateway.data.waitline import Awaited, WaitLine
from gateway.errors import AdapterNotReady, GatewayError, NoEngineReady
from gateway.snapshot import Snapshot, Want, WantEngine

ADAPTER, ENGINE = "adapter", "engine"
MAX_ABSENCES = 3
"""How often a request goes elsewhere or waits again because a replica did not know the adapter."""
GONE_RETRY_S = 1


class Waiter(Protocol):
    """The request itself; no longer in line when it is called."""

    def wait_answered(self, route: ModelRoute, /) -> None:
        """A replica of `route` is ready."""
        ...

    def wait_refused(self, error: GatewayError, /) -> None:
        """None will be."""
        ...

    def wait_continues(self, route: ModelRoute, /) -> None:
        """None is yet; still in line. One may have loaded the adapter, or have it no longer."""
        ...


class Claim(ABC):
    """One request's claim on one thing. It waits a certain time in all, however often it has to."""

    __slots__ = (
        "_entered_s", "_failed_starts", "_limit_s", "_line", "_waiter", "is_waiting", "name", "num_absences", "waited_s",
    )  # fmt: skip
    kind: ClassVar[str]
    header: ClassVar[str]
    """Tells the client how long it waited, in milliseconds."""

    def __init__(self, name: str, line: WaitLine, waiter: Waiter) -> None:
        self.name = name
        self._line = line
        self._waiter = waiter
        self._entered_s = 0.0
        self._limit_s = 0.0
        self._failed_starts: Mapping[str, int] = {}
        """By engine, when it began to wait: one whose start has failed since would be started for it in vain."""
        self.is_waiting = False
        self.num_absences = 0
        """How often a replica that should have had it did not."""
        self.waited_s: float | None = None
        """None for a request that did not have to wait."""

    @property
    def awaited(self) -> Awaited:
        return Awaited(self.kind, self.name)

    @abstractmethod
    def asking(self) -> Want | WantEngine: ...

    @abstractmethod
    def route(self, index: Index) -> ModelRoute | None: ...

    @abstractmethod
    def refusal(self, index: Index) -> GatewayError | None: ...

    @abstractmethod
    def must_ask_again(self, route: ModelRoute) -> bool: ...

    @abstractmethod
    def limit(self, snapshot: Snapshot) -> int: ...

    @abstractmethod
    def no_place(self, limit: int, index: Index) -> GatewayError: ...

    @abstractmethod
    def longest_s(self, index: Index) -> float:
        """Return how long it may wait in all, as things stand."""

    @abstractmethod
    def too_late(self, index: Index) -> GatewayError:
        """Return the answer once that time is over."""

    @abstractmethod
    def noted(self, line: AccessLine, route: ModelRoute) -> AccessLine:
        """Return `line` with what the log has of such a request."""

    def ready(self, route: ModelRoute) -> None:
        self._waiter.wait_answered(route)

    def refused(self, error: GatewayError) -> None:
        self._waiter.wait_refused(error)

    def continues(self, route: ModelRoute) -> None:
        self._waiter.wait_continues(route)

    def enter(self, index: Index, tried: Collection[str], now_s: float) -> float:
        """Begin to wait for a replica, `tried` ones only once they were without it; returns until when. Raises NoEngineReady."""
        route = self.route(index)
        self._failed_starts = {} if route is None else route.failed_starts
        self._line.enter(self, index, tried)
        self.is_waiting = True
        self._entered_s = now_s
        self.waited_s = self.waited_s or 0.0
        self._limit_s = max(self._limit_s, self.longest_s(index))
        return now_s + self._limit_s - self.waited_s

    def leave(self, now_s: float) -> None:
        """The wait is over, in whichever way."""
        if self.is_waiting:
            self.is_waiting = False
            self._line.leave(self)
            self.waited_s = (self.waited_s or 0.0) + now_s - self._entered_s

    def failed_start(self, route: ModelRoute) -> GatewayError | None:
        """Return why no engine is up, where all that could be started for it did not come up since it waits, and none is on its way."""
        if route.has_ready_engine or route.is_coming or not route.on_call:
            return None
        is_in_vain = all(
            engine.num_failed_starts > self._failed_starts.get(engine.id, engine.num_failed_starts)
            for engine in route.on_call
        )
        return route.not_ready() if is_in_vain else None

    @property
    def wait_ms(self) -> float | None:
        """All waits so far; None for a request that had none."""
        return None if self.waited_s is None else int(self.waited_s * 1e6) / 1e3

    def header_line(self) -> bytes:
        """Return the line that tells the client how long it waited; empty for a request that did not."""
        return b"" if self.waited_s is None else b"%b: %d\r\n" % (self.header.encode(), self.waited_s * 1000)


class AdapterClaim(Claim):
    """Waits until a ready replica holds a version."""

    __slots__ = ()
    kind = ADAPTER
    header = "x-forgegate-adapter-wait-ms"

    def asking(self) -> Want:
        return Want(self.name)

    def route(self, index: Index) -> ModelRoute | None:
        return index.adapters.get(self.name)

    def refusal(self, index: Index) -> GatewayError | None:
        route = index.adapters.get(self.name)
        if route is None:
            message = f"the adapter {self.name} was removed while the request waited for it"
            return AdapterNotReady(message, param="model", retry_after_s=GONE_RETRY_S)
        return route.refusal() or (route.not_ready() if route.is_given_up else self.failed_start(route))

    def must_ask_again(self, route: ModelRoute) -> bool:
        """A replica that holds it and is not ready becomes so, or is named no longer: either is another snapshot. So for one that has
        loaded it."""
        return route.adapter is not None and not route.adapter.engines and not route.adapter.unproven

    def limit(self, snapshot: Snapshot) -> int:
        return snapshot.max_adapter_waiting

    def no_place(self, limit: int, index: Index) -> GatewayError:
        message = f"the adapter {self.name} is not loaded, and {limit} requests wait for adapters already"
        return AdapterNotReady(message, param="model", retry_after_s=index.retry_after_s(self.name))

    def longest_s(self, index: Index) -> float:
        """Where no engine of its model is up, the start of one comes first."""
        route, snapshot = index.adapters[self.name], index.snapshot
        return snapshot.adapter_wait_s + (0.0 if route.has_ready_engine else snapshot.engine_wait_s)

    def too_late(self, index: Index) -> GatewayError:
        message = f"the adapter {self.name} was not loaded within {self._limit_s:g} s"
        return AdapterNotReady(message, param="model", retry_after_s=index.retry_after_s(self.name))

    def noted(self, line: AccessLine, route: ModelRoute) -> AccessLine:
        return replace(line, base=route.model.name, adapter_wait_ms=self.wait_ms)


class EngineClaim(Claim):
    """Waits until an engine of a model is ready."""

    __slots__ = ()
    kind = ENGINE
    header = "x-forgegate-engine-wait-ms"

    def asking(self) -> WantEngine:
        return WantEngine(self.name)

    def route(self, index: Index) -> ModelRoute | None:
        return index.models.get(self.name)

    def refusal(self, index: Index) -> GatewayError | None:
        route = index.models.get(self.name)
        if route is None:
            return index.no_such_model(self.name)
        return None if route.ready else route.hopeless() or self.failed_start(route)

    def must_ask_again(self, route: ModelRoute) -> bool:
        """One that starts goes on, whoever asks."""
        return not route.is_coming

    def limit(self, snapshot: Snapshot) -> int:
        return snapshot.max_engine_waiting

    def no_place(self, limit: int, index: Index) -> GatewayError:
        return self._unserved(f"and {limit} requests wait for engines already", index)

    def longest_s(self, index: Index) -> float:
        return index.snapshot.engine_wait_s

    def too_late(self, index: Index) -> GatewayError:
        return self._unserved(f"nor was one within {self._limit_s:g} s", index)

    def noted(self, line: AccessLine, route: ModelRoute) -> AccessLine:
        return replace(line, engine_wait_ms=self.wait_ms)

    def _unserved(self, why: str, index: Index) -> GatewayError:
        route = index.models.get(self.name)
        if route is None:
            return index.no_such_model(self.name)
        error = route.not_ready()
        return NoEngineReady(f"{error.message}, {why}", param="model", retry_after_s=error.retry_after_s)
