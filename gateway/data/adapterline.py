"""The line of requests that wait for an adapter which no ready replica holds.

    enter --first for its adapter--> Want to control
    snapshot in which a ready replica holds it --> adapter_ready      each waiter hears one of the two, in order of arrival,
    snapshot that refuses it, or has it no more --> adapter_refused   unless it leaves first (client gone, waited too long)
    snapshot in which no replica holds it --> Want once more: who answered the last one may have gone down since

A replica that has denied the adapter to a waiter, or failed it, does not count for that waiter before a snapshot has shown
it without the adapter: what is still in the newest one may be older than the denial. A wait has no timer here; a request
watches its own deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from gateway.data.snapshot import Index, ModelRoute
from gateway.errors import AdapterNotReady, GatewayError

GONE_RETRY_S = 1


class Waiter(Protocol):
    """A request in the line; no longer in it when it is called."""

    def adapter_ready(self, route: ModelRoute, /) -> None:
        """A replica of `route` is ready and holds the adapter."""
        ...

    def adapter_refused(self, error: GatewayError, /) -> None:
        """No replica will."""
        ...


class _Place:
    """Where a waiter stands."""

    __slots__ = ("name", "tried")

    def __init__(self, name: str, tried: Collection[str]) -> None:
        self.name = name
        self.tried = frozenset(tried)

    def suits(self, route: ModelRoute | None) -> bool:
        """Return whether a replica holds the adapter now that has not failed the waiter since it was loaded."""
        holders = route.routes.keys() if route is not None else frozenset()
        self.tried &= holders
        return len(holders) > len(self.tried)


class AdapterLine:
    """One for a worker. `want` asks control for an adapter."""

    def __init__(self, want: Callable[[str], None]) -> None:
        self._want = want
        self._places: dict[Waiter, _Place] = {}
        """In order of arrival."""
        self._num_waiting: dict[str, int] = {}
        """By adapter."""

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, waiter: Waiter, name: str, index: Index, tried: Collection[str] = ()) -> None:
        """Wait for adapter `name`. Raises AdapterNotReady where that is hopeless, or the line is full."""
        refusal = _refusal(name, index)
        if refusal is not None:
            raise refusal
        limit = index.snapshot.max_adapter_waiting
        if len(self._places) >= limit:
            message = f"the adapter {name} is not loaded, and {limit} requests wait for adapters already"
            raise AdapterNotReady(message, param="model", retry_after_s=index.retry_after_s(name))
        self._places[waiter] = _Place(name, tried)
        num_waiting = self._num_waiting.get(name, 0)
        self._num_waiting[name] = num_waiting + 1
        if not num_waiting:
            self._want(name)

    def leave(self, waiter: Waiter) -> bool:
        """Give up a place; returns whether there was one."""
        place = self._places.pop(waiter, None)
        if place is None:
            return False
        self._num_waiting[place.name] -= 1
        if not self._num_waiting[place.name]:
            del self._num_waiting[place.name]
        return True

    def wake(self, index: Index) -> None:
        """Tell everyone whose adapter the new `index` holds or refuses; want what no replica of it holds."""
        cold: dict[str, None] = {}
        for waiter, place in list(self._places.items()):
            route = index.adapters.get(place.name)
            is_ready = place.suits(route)
            refusal = None if is_ready else _refusal(place.name, index)
            if not is_ready and refusal is None:
                # A replica that holds it and is not ready becomes so, or is named no longer: either is another snapshot.
                if route is not None and route.adapter is not None and not route.adapter.engines:
                    cold[place.name] = None
                continue
            if not self.leave(waiter):
                continue
            if refusal is not None:
                waiter.adapter_refused(refusal)
            elif route is not None:
                waiter.adapter_ready(route)
        for name in cold:
            if name in self._num_waiting:
                self._want(name)

    def check_integrity(self) -> None:
        """Assert that nobody waits."""
        assert not self._places, f"{len(self._places)} requests still wait for adapters"
        assert not self._num_waiting, f"waiters are counted for {self._num_waiting}"


def _refusal(name: str, index: Index) -> AdapterNotReady | None:
    route = index.adapters.get(name)
    if route is None:
        message = f"the adapter {name} was removed while the request waited for it"
        return AdapterNotReady(message, param="model", retry_after_s=GONE_RETRY_S)
    return route.refusal()
