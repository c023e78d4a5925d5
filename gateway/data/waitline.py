"""The line of requests that wait: for an adapter that no ready replica holds, or for an engine that starts on demand.

    enter --first for it--> ask control
    snapshot in which a ready replica can answer --> ready             each claim hears one of the two, in order of arrival,
    snapshot in which none will --> refused                            unless it leaves first (client gone, waited too long)
    snapshot in which none does yet --> continues: it may be on its way to a replica that has just loaded the adapter
    snapshot in which none does yet --> ask once more where control may not know: whoever answered may have gone down since

What is waited for, and how much of it there may be, is the claim's to say (`gateway.data.claim`). A replica that has denied
an adapter to a claim, or failed it, does not count for that claim before a snapshot has shown it without the adapter: what is
still in the newest one may be older than the denial. A wait has no timer here; a request watches its own deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from gateway.data.snapshot import Index, ModelRoute
from gateway.errors import GatewayError
from gateway.snapshot import Snapshot, Want, WantEngine


class Awaited(NamedTuple):
    """What is waited for; requests for the same thing share what is asked of control."""

    kind: str
    """`adapter` or `engine`."""
    name: str
    """Of the version, or of the model."""


class Claim(Protocol):
    """A request in the line; no longer in it when it is told."""

    @property
    def awaited(self) -> Awaited:
        """What it waits for."""
        ...

    def asking(self) -> Want | WantEngine:
        """Return what is said to control."""
        ...

    def route(self, index: Index, /) -> ModelRoute | None:
        """Return who answers, ready or not."""
        ...

    def refusal(self, index: Index, /) -> GatewayError | None:
        """Return why nobody will; None while somebody may."""
        ...

    def must_ask_again(self, route: ModelRoute, /) -> bool:
        """Return whether control has to be asked anew, since nobody is ready on `route`."""
        ...

    def limit(self, snapshot: Snapshot, /) -> int:
        """Return how many may wait for such things."""
        ...

    def no_place(self, limit: int, index: Index, /) -> GatewayError:
        """Return the answer where as many do."""
        ...

    def ready(self, route: ModelRoute, /) -> None:
        """Go on: a replica of `route` is ready."""
        ...

    def refused(self, error: GatewayError, /) -> None:
        """Give up."""
        ...

    def continues(self, route: ModelRoute, /) -> None:
        """Wait on: no replica of `route` is ready yet. It may leave the line."""
        ...


class _Place:
    """Where a claim stands."""

    __slots__ = ("tried",)

    def __init__(self, tried: Collection[str]) -> None:
        self.tried = frozenset(tried)

    def suits(self, route: ModelRoute | None) -> bool:
        """Return whether a replica is ready now that has not failed the claim since it came to hold what is asked for."""
        holders = route.routes.keys() if route is not None else frozenset()
        self.tried &= holders
        return len(holders) > len(self.tried)


class WaitLine:
    """One for a worker. `ask` tells control what is waited for."""

    def __init__(self, ask: Callable[[Want | WantEngine], None]) -> None:
        self._ask = ask
        self._places: dict[Claim, _Place] = {}
        """In order of arrival."""
        self._num_waiting: Counter[Awaited] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def num_waiting(self, kind: str) -> int:
        """Return how many wait for things of this kind."""
        return sum(num for awaited, num in self._num_waiting.items() if awaited.kind == kind)

    def enter(self, claim: Claim, index: Index, tried: Collection[str] = ()) -> None:
        """Wait. Raises NoEngineReady or AdapterNotReady where that is hopeless, or too many do."""
        refusal = claim.refusal(index)
        if refusal is not None:
            raise refusal
        awaited, limit = claim.awaited, claim.limit(index.snapshot)
        if self.num_waiting(awaited.kind) >= limit:
            raise claim.no_place(limit, index)
        self._places[claim] = _Place(tried)
        self._num_waiting[awaited] += 1
        if self._num_waiting[awaited] == 1:
            self._ask(claim.asking())

    def leave(self, claim: Claim) -> bool:
        """Give up a place; returns whether there was one."""
        if self._places.pop(claim, None) is None:
            return False
        self._num_waiting[claim.awaited] -= 1
        if not self._num_waiting[claim.awaited]:
            del self._num_waiting[claim.awaited]
        return True

    def wake(self, index: Index) -> None:
        """Tell everyone for whom the new `index` has an answer; ask again for what control may have forgotten."""
        unanswered: dict[Awaited, Claim] = {}
        for claim, place in list(self._places.items()):
            route = claim.route(index)
            is_ready = place.suits(route)
            refusal = None if is_ready else claim.refusal(index)
            if not is_ready and refusal is None:
                if route is not None and claim in self._places:
                    if claim.must_ask_again(route):
                        unanswered[claim.awaited] = claim
                    claim.continues(route)
                continue
            if not self.leave(claim):
                continue
            if refusal is not None:
                claim.refused(refusal)
            elif route is not None:
                claim.ready(route)
        for awaited, claim in unanswered.items():
            if awaited in self._num_waiting:
                self._ask(claim.asking())

    def check_integrity(self) -> None:
        """Assert that nobody waits."""
        assert not self._places, f"{len(self._places)} requests still wait"
        assert not self._num_waiting, f"waiters are counted for {self._num_waiting}"
