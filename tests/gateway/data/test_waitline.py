"""The line of requests that wait for an adapter or an engine: a state machine of everything that may happen to it, in any order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.data.claim import ADAPTER, ENGINE, AdapterClaim, Claim, EngineClaim
from gateway.data.snapshot import Index, ModelRoute
from gateway.data.waitline import WaitLine
from gateway.errors import GatewayError, NoEngineReady
from gateway.snapshot import Adapter, Engine, Model, Snapshot, Want, WantEngine

NAMES = ("a@1", "b@2", "c@3")
ENGINES = ("m-0", "m-1")
ON_DEMAND = "d"
"""A model of one engine, which starts on demand."""
LIMITS = {ADAPTER: 5, ENGINE: 3}


def make_index(
    holders: dict[str, set[str]],
    refused: Collection[str] = (),
    removed: Collection[str] = (),
    down: str = "",
    on_demand: str = "stopped",
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
    is_paused = on_demand == "paused"
    state = "stopped" if is_paused else on_demand
    called = Engine("d-0", 2, "vllm", state, "h", 1, is_on_demand=True, is_paused=is_paused, detail="out of memory")
    models = (Model("m", "m", engines), Model(ON_DEMAND, ON_DEMAND, (called,)))
    limits = {"max_adapter_waiting": LIMITS[ADAPTER], "max_engine_waiting": LIMITS[ENGINE]}
    return Index(Snapshot(1, models, adapters, **limits))


@dataclass(eq=False)
class Waiter:
    name: str
    log: list[Waiter]
    tried: set[str] = field(default_factory=set)
    ends: list[str] = field(default_factory=list)
    looks: int = 0
    """How many snapshots it has waited past."""

    @property
    def kind(self) -> str:
        return ENGINE if self.name == ON_DEMAND else ADAPTER

    def claim_in(self, line: WaitLine) -> Claim:
        self.claim = EngineClaim(self.name, line, self) if self.kind == ENGINE else AdapterClaim(self.name, line, self)
        return self.claim

    def wait_answered(self, route: ModelRoute) -> None:
        assert route.resolved == self.name
        assert route.ready
        self.ends.append("ready")
        self.log.append(self)

    def wait_refused(self, error: GatewayError) -> None:
        assert isinstance(error, NoEngineReady)
        self.ends.append("refused")

    def wait_continues(self, route: ModelRoute) -> None:
        assert route.resolved == self.name
        assert not self.ends
        self.looks += 1


class Line(RuleBasedStateMachine):
    """Requests come, leave, and are told; the model is a list of who should still stand in line."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.line = WaitLine(self.ask)
        self.index = make_index({})
        self.waiting: list[Waiter] = []
        self.everyone: list[Waiter] = []
        self.served: list[Waiter] = []

    def ask(self, message: Want | WantEngine) -> None:
        self.asked.append(message.adapter if isinstance(message, Want) else message.model)

    @rule(name=st.sampled_from((*NAMES, ON_DEMAND)), has_tried=st.booleans())
    def arrive(self, name: str, has_tried: bool) -> None:
        route = self.index.models.get(name) or self.index.adapters.get(name)
        holders = set(route.routes) if route is not None else set()
        if holders and not (has_tried and name in NAMES):
            return  # somebody is ready: it does not come here
        waiter = Waiter(name, self.served, holders)
        num_asked = len(self.asked)
        is_first = not any(other.name == name for other in self.waiting)
        alike = [other for other in self.waiting if other.kind == waiter.kind]
        is_hopeless = route is None or (route.hopeless() if waiter.kind == ENGINE else route.refusal()) is not None
        if is_hopeless or len(alike) >= LIMITS[waiter.kind]:
            with pytest.raises(NoEngineReady) as caught:
                self.line.enter(waiter.claim_in(self.line), self.index, waiter.tried)
            assert caught.value.retry_after_s
            assert self.asked[num_asked:] == []
            return
        self.line.enter(waiter.claim_in(self.line), self.index, waiter.tried)
        assert self.asked[num_asked:] == ([name] if is_first else [])
        self.waiting.append(waiter)
        self.everyone.append(waiter)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        assert self.line.leave(waiter.claim)
        assert not self.line.leave(waiter.claim)
        self.waiting.remove(waiter)
        waiter.ends.append("left")

    @rule(
        holders=st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(ENGINES))),
        refused=st.sets(st.sampled_from(NAMES), max_size=1),
        removed=st.sets(st.sampled_from(NAMES), max_size=1),
        down=st.sampled_from(("", *ENGINES)),
        on_demand=st.sampled_from(
            ("stopped", "asleep", "starting", "backoff", "draining", "ready", "failed", "paused")
        ),
    )
    def push(
        self, holders: dict[str, set[str]], refused: set[str], removed: set[str], down: str, on_demand: str
    ) -> None:
        self.index = make_index(holders, refused, removed, down, on_demand)
        up = {"d-0"} if on_demand == "ready" else set()
        hopeless = refused | removed | ({ON_DEMAND} if on_demand in ("failed", "paused") else set())
        expected, staying = [], []
        for waiter in self.waiting:
            now = up if waiter.kind == ENGINE else holders.get(waiter.name, set()) - {down}
            if waiter.name in removed:
                now = set()
            waiter.tried &= now
            if now - waiter.tried:
                expected.append(waiter)
            elif waiter.name not in hopeless:
                staying.append(waiter)
        self.served.clear()
        num_asked = len(self.asked)
        looks = {id(waiter): waiter.looks for waiter in self.waiting}
        self.line.wake(self.index)
        assert self.served == expected, "not in the order of arrival"
        assert [w.looks - looks[id(w)] for w in self.waiting] == [w in staying for w in self.waiting]
        asked_anew = [
            name
            for name in dict.fromkeys(waiter.name for waiter in staying)
            if (not holders.get(name) if name in NAMES else on_demand != "starting")
        ]
        assert self.asked[num_asked:] == asked_anew
        self.waiting = staying

    @invariant()
    def each_ends_once(self) -> None:
        for waiter in self.everyone:
            assert len(waiter.ends) == (waiter not in self.waiting)
        assert len(self.line) == len(self.waiting)
        for kind in LIMITS:
            assert self.line.num_waiting(kind) == sum(waiter.kind == kind for waiter in self.waiting)

    def teardown(self) -> None:
        for waiter in self.waiting:
            self.line.leave(waiter.claim)
        self.line.check_integrity()


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def enter(line: WaitLine, waiter: Waiter, index: Index, tried: Collection[str] = ()) -> None:
    line.enter(waiter.claim_in(line), index, tried)


def test_a_waiter_may_leave_while_others_are_woken() -> None:
    line = WaitLine(lambda _: None)
    woken: list[Waiter] = []
    first, second = (Waiter("a@1", woken) for _ in range(2))
    first.wait_answered = lambda _: line.leave(second.claim)  # type: ignore[method-assign]
    cold = make_index({})
    enter(line, first, cold)
    enter(line, second, cold)
    line.wake(make_index({"a@1": {"m-0"}}))
    assert second.ends == []
    line.check_integrity()


def test_who_left_while_others_were_woken_is_told_nothing() -> None:
    line = WaitLine(lambda _: None)
    first, second = (Waiter("a@1", []) for _ in range(2))
    first.wait_continues = lambda _: line.leave(second.claim)  # type: ignore[method-assign]
    cold = make_index({})
    enter(line, first, cold)
    enter(line, second, cold)
    line.wake(make_index({}))
    assert (second.looks, len(line)) == (0, 1)
    line.leave(first.claim)


def test_what_is_loaded_somewhere_is_not_asked_for_again() -> None:
    asked: list[Want | WantEngine] = []
    line = WaitLine(asked.append)
    waiter = Waiter("a@1", [])
    enter(line, waiter, make_index({}))
    adapter = Adapter("a@1", "m", unproven=("m-0",))
    engines = (Engine("m-0", 0, "vllm", "ready", "h", 1),)
    line.wake(Index(Snapshot(2, (Model("m", "m", engines),), (adapter,))))
    assert (asked, waiter.looks) == ([Want("a@1")], 1)
    line.leave(waiter.claim)


def test_who_comes_while_others_are_woken_waits_for_the_next_snapshot() -> None:
    asked: list[Want | WantEngine] = []
    line = WaitLine(asked.append)
    cold, warm = make_index({}), make_index({"a@1": {"m-0"}})
    late, first = Waiter("b@2", []), Waiter("a@1", [])
    first.wait_answered = lambda _: enter(line, late, warm)  # type: ignore[method-assign]
    enter(line, first, cold)
    line.wake(warm)
    assert (asked, len(line)) == ([Want("a@1"), Want("b@2")], 1)
    line.leave(late.claim)


def test_a_name_whose_holder_went_away_is_wanted_again() -> None:
    """The want was answered by a replica that had failed the waiter already; then that one went down."""
    asked: list[Want | WantEngine] = []
    line = WaitLine(asked.append)
    waiter = Waiter("a@1", [])
    enter(line, waiter, make_index({"a@1": {"m-0"}}), {"m-0"})
    line.wake(make_index({"a@1": {"m-0"}}))
    assert (asked, waiter.ends) == ([Want("a@1")], [])
    line.wake(make_index({}, down="m-0"))
    assert (asked, waiter.ends) == ([Want("a@1")] * 2, [])
    line.wake(make_index({"a@1": {"m-1"}}, down="m-0"))
    assert (asked, waiter.ends) == ([Want("a@1")] * 2, ["ready"])
    line.check_integrity()


def test_an_engine_that_went_to_sleep_as_it_was_asked_for_is_asked_for_again() -> None:
    asked: list[Want | WantEngine] = []
    line = WaitLine(asked.append)
    waiter = Waiter(ON_DEMAND, [])
    enter(line, waiter, make_index({}, on_demand="draining"))
    line.wake(make_index({}, on_demand="asleep"))
    line.wake(make_index({}, on_demand="starting"))
    assert asked == [WantEngine(ON_DEMAND)] * 2
    line.wake(make_index({}, on_demand="ready"))
    assert waiter.ends == ["ready"]
    line.check_integrity()
