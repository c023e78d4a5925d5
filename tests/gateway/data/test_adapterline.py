"""The line of requests that wait for an adapter: a state machine of everything that may happen to it, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.data.adapterline import AdapterLine
from gateway.data.snapshot import Index, ModelRoute
from gateway.errors import AdapterNotReady, GatewayError
from gateway.snapshot import Adapter, Engine, Model, Snapshot

NAMES = ("a@1", "b@2", "c@3")
ENGINES = ("m-0", "m-1")
LIMIT = 5


def make_index(
    holders: dict[str, set[str]], refused: set[str] = frozenset(), removed: set[str] = frozenset(), down: str = ""
) -> Index:
    engines = tuple(
        Engine(name, slot, "llamacpp", "backoff" if name == down else "ready", "h", 1)
        for slot, name in enumerate(ENGINES)
    )
    adapters = tuple(
        Adapter(name, "m", tuple(sorted(holders.get(name, ()))), refusal="broken" if name in refused else "")
        for name in NAMES
        if name not in removed
    )
    return Index(Snapshot(1, (Model("m", "m", engines),), adapters, max_adapter_waiting=LIMIT))


@dataclass(eq=False)
class Waiter:
    number: int
    name: str
    log: list[Waiter]
    tried: set[str] = field(default_factory=set)
    ends: list[str] = field(default_factory=list)

    def adapter_ready(self, route: ModelRoute) -> None:
        assert route.resolved == self.name
        assert route.ready
        self.ends.append("ready")
        self.log.append(self)

    def adapter_refused(self, error: GatewayError) -> None:
        assert isinstance(error, AdapterNotReady)
        self.ends.append("refused")


class Line(RuleBasedStateMachine):
    """Requests come, leave, and are told; the model is a list of who should still stand in line."""

    def __init__(self) -> None:
        super().__init__()
        self.wants: list[str] = []
        self.line = AdapterLine(self.wants.append)
        self.index = make_index({})
        self.waiting: list[Waiter] = []
        self.everyone: list[Waiter] = []
        self.served: list[Waiter] = []
        self.num_outside = 0

    @rule(name=st.sampled_from(NAMES), has_tried=st.booleans())
    def arrive(self, name: str, has_tried: bool) -> None:
        route = self.index.adapters.get(name)
        holders = set(route.routes) if route is not None else set()
        if holders and not has_tried:
            return  # warm: it does not come here
        waiter = Waiter(len(self.everyone), name, self.served, holders)
        num_wants = len(self.wants)
        is_first = not any(other.name == name for other in self.waiting)
        is_hopeless = route is None or route.refusal() is not None
        if is_hopeless or len(self.waiting) >= LIMIT:
            with pytest.raises(AdapterNotReady) as caught:
                self.line.enter(waiter, name, self.index, waiter.tried)
            assert caught.value.retry_after_s
            assert self.wants[num_wants:] == []
            return
        self.line.enter(waiter, name, self.index, waiter.tried)
        assert self.wants[num_wants:] == ([name] if is_first else [])
        self.waiting.append(waiter)
        self.everyone.append(waiter)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        assert self.line.leave(waiter)
        assert not self.line.leave(waiter)
        self.waiting.remove(waiter)
        waiter.ends.append("left")

    @rule(
        holders=st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(ENGINES))),
        refused=st.sets(st.sampled_from(NAMES), max_size=1),
        removed=st.sets(st.sampled_from(NAMES), max_size=1),
        down=st.sampled_from(("", *ENGINES)),
    )
    def push(self, holders: dict[str, set[str]], refused: set[str], removed: set[str], down: str) -> None:
        self.index = make_index(holders, refused, removed, down)
        expected, staying = [], []
        for waiter in self.waiting:
            now = holders.get(waiter.name, set()) - {down} if waiter.name not in removed else set()
            waiter.tried &= now
            if now - waiter.tried:
                expected.append(waiter)
            elif waiter.name not in refused | removed:
                staying.append(waiter)
        self.served.clear()
        num_wants = len(self.wants)
        self.line.wake(self.index)
        assert self.served == expected, "not in the order of arrival"
        cold = dict.fromkeys(waiter.name for waiter in staying if not holders.get(waiter.name))
        assert self.wants[num_wants:] == list(cold), "what no engine holds is wanted anew"
        self.waiting = staying

    @invariant()
    def each_ends_once(self) -> None:
        for waiter in self.everyone:
            assert len(waiter.ends) == (waiter not in self.waiting)
        assert len(self.line) == len(self.waiting)

    def teardown(self) -> None:
        for waiter in self.waiting:
            self.line.leave(waiter)
        self.line.check_integrity()


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_waiter_may_leave_while_others_are_woken() -> None:
    line = AdapterLine(lambda _: None)
    woken: list[Waiter] = []
    first, second = (Waiter(number, "a@1", woken) for number in range(2))
    first.adapter_ready = lambda _: line.leave(second)  # type: ignore[method-assign]
    cold = make_index({})
    line.enter(first, "a@1", cold)
    line.enter(second, "a@1", cold)
    line.wake(make_index({"a@1": {"m-0"}}))
    assert second.ends == []
    line.check_integrity()


def test_who_comes_while_others_are_woken_waits_for_the_next_snapshot() -> None:
    wants: list[str] = []
    line = AdapterLine(wants.append)
    cold, warm = make_index({}), make_index({"a@1": {"m-0"}})
    late = Waiter(1, "b@2", [])
    first = Waiter(0, "a@1", [])
    first.adapter_ready = lambda _: line.enter(late, "b@2", warm)  # type: ignore[method-assign]
    line.enter(first, "a@1", cold)
    line.wake(warm)
    assert (wants, len(line)) == (["a@1", "b@2"], 1)
    line.leave(late)


def test_a_name_whose_holder_went_away_is_wanted_again() -> None:
    """The want was answered by a replica that had failed the waiter already; then that one went down."""
    wants: list[str] = []
    line = AdapterLine(wants.append)
    waiter = Waiter(0, "a@1", [])
    line.enter(waiter, "a@1", make_index({"a@1": {"m-0"}}), {"m-0"})
    line.wake(make_index({"a@1": {"m-0"}}))
    assert (wants, waiter.ends) == (["a@1"], [])
    line.wake(make_index({}, down="m-0"))
    assert (wants, waiter.ends) == (["a@1", "a@1"], [])
    line.wake(make_index({"a@1": {"m-1"}}, down="m-0"))
    assert (wants, waiter.ends) == (["a@1", "a@1"], ["ready"])
    line.check_integrity()
