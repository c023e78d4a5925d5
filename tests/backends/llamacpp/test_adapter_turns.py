"""Adapters take turns: nobody starves, changes cost no more than their share, a first token does not wait long."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.llamacpp.adapter_turns import (
    MAX_RUN,
    SHARE_FOR_NEWCOMERS,
    SWITCH_SHARE,
    Demand,
    StepCosts,
    Turns,
    run_length,
)


@dataclass
class Engine:
    """Steps of groups on a clock of its own; `sizes` is how many sequences each group has."""

    sizes: dict[str, int]
    switch_s: float
    token_s: float
    turns: Turns = field(default_factory=Turns)
    now_s: float = 0.0
    switching_s: float = 0.0
    last: object = None
    order: list[tuple[str, int]] = field(default_factory=list)
    """Turns: whose, how many steps."""
    chunk_s: dict[str, float] = field(default_factory=dict)
    """What a step with a prompt's chunk takes, of groups that have one in every step."""

    def step(self, newcomers: dict[str, int] | None = None) -> str:
        newcomers = newcomers or {}
        group = str(self.turns.choose([Demand(name, newcomers.get(name)) for name in self.sizes]))
        duration_s = 0.01 + self.token_s * self.sizes[group] + self.chunk_s.get(group, 0.0)
        if group != self.last:
            duration_s += self.switch_s
            self.switching_s += self.switch_s
            self.order.append((group, 0))
        self.order[-1] = (group, self.order[-1][1] + 1)
        self.last = group
        self.now_s += duration_s
        self.turns.ran(self.sizes[group], duration_s, is_decoding=group not in self.chunk_s)
        return group


sizes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 32), min_size=2)
seconds = st.floats(0.0001, 0.05)


@given(sizes, seconds, seconds)
@example({name: 32 if name == "c" else 1 for name in "abcdefgh"}, 0.03125, 0.03125)
@settings(max_examples=40, deadline=None)
def test_changes_cost_at_most_their_share(sizes: dict[str, int], switch_s: float, token_s: float) -> None:
    engine = Engine(sizes, switch_s, token_s)
    for _ in range(400):
        engine.step()  # until what a change costs has been seen
    engine.now_s = engine.switching_s = 0.0
    for _ in range(8 * MAX_RUN * len(sizes)):
        engine.step()
    runs = [length for _, length in engine.order[-len(sizes) :]]
    assert engine.switching_s / engine.now_s <= SWITCH_SHARE * 1.1 or max(runs) == MAX_RUN


@given(sizes, seconds, seconds, st.data())
@settings(max_examples=40, deadline=None)
def test_nobody_starves(sizes: dict[str, int], switch_s: float, token_s: float, data: st.DataObject) -> None:
    engine = Engine(sizes, switch_s, token_s)
    number = 0
    for _ in range(30):
        names = data.draw(st.lists(st.sampled_from(sorted(sizes)), max_size=3, unique=True))
        newcomers = {name: (number := number + 1) for name in names}
        for _ in range(data.draw(st.integers(1, 40))):
            group = engine.step(newcomers)
            newcomers.pop(group, None)
    most = 2 * (len(sizes) - 1)
    names = [name for name, _ in engine.order]
    for name in sizes:
        places = [-1, *(at for at, other in enumerate(names) if other == name), len(names)]
        assert max(after - before - 1 for before, after in pairwise(places)) <= most
    assert max(length for _, length in engine.order) <= MAX_RUN


@given(sizes, seconds, seconds)
@settings(max_examples=20, deadline=None)
def test_without_newcomers_groups_go_round_and_get_as_many_steps(
    sizes: dict[str, int], switch_s: float, token_s: float
) -> None:
    engine = Engine(sizes, switch_s, token_s)
    for _ in range(400):
        engine.step()
    engine.order.clear()
    engine.last = None
    for _ in range(3 * MAX_RUN * len(sizes)):
        engine.step()
    whole = engine.order[1:-1]
    names = [name for name, _ in whole]
    assert all(len(set(names[at : at + len(sizes)])) == len(sizes) for at in range(len(names) - len(sizes) + 1))
    lengths = {length for at, (_, length) in enumerate(whole)}
    assert max(lengths, default=1) - min(lengths, default=1) <= 2, "sequences advance alike"


def test_a_newcomer_cuts_a_turn_short() -> None:
    engine = Engine({"a": 8, "b": 8}, switch_s=0.02, token_s=0.001)
    for _ in range(200):
        engine.step()

    def steps_until_b(newcomers: dict[str, int]) -> int:
        while engine.step() != "b":
            pass
        while engine.step() != "a":
            pass
        count = 1
        while engine.step(newcomers) != "b":
            count += 1
        return count

    alone, hurried = steps_until_b({}), steps_until_b({"b": 1})
    assert alone == round((1 / SWITCH_SHARE - 1) * 0.02 / 0.018)
    assert hurried == pytest.approx((1 / SHARE_FOR_NEWCOMERS - 1) * 0.02 / 0.018, abs=1)


def test_the_newcomer_that_waits_longest_goes_first() -> None:
    turns = Turns()
    assert turns.choose([Demand("a", 7), Demand("b", 3), Demand("c")]) == "b"
    assert turns.choose([Demand("a", 7), Demand("c")]) == "a"


def test_a_chunk_counts_as_the_steps_that_it_takes_the_time_of() -> None:
    engine = Engine({"a": 8, "b": 8}, switch_s=0.02, token_s=0.001)
    for _ in range(200):
        engine.step()
    engine.chunk_s["a"] = 10.0
    engine.order.clear()
    engine.last = None
    for _ in range(60):
        engine.step()
    assert {length for name, length in engine.order[1:] if name == "a"} == {1}


def test_whoever_is_alone_goes_on() -> None:
    turns = Turns()
    assert turns.choose([Demand("a")]) == "a"
    for _ in range(3 * MAX_RUN):
        turns.ran(1, 0.001, is_decoding=True)
        assert turns.choose([Demand("a")]) == "a"
    assert turns.choose([Demand("a"), Demand("b", 1)]) == "b", "its turn was long over"


def test_what_is_forgotten_leaves_the_base_model() -> None:
    turns = Turns()
    turns.choose([Demand("a")])
    turns.ran(1, 0.001, is_decoding=True)
    turns.forget("a")
    assert turns.current is None


def test_the_run_length_follows_what_a_change_costs() -> None:
    demands = [Demand("a"), Demand("b")]

    def length(switch_s: float, decode_s: float) -> int:
        costs = StepCosts()
        for group in "ab":
            costs.observe(group, 4, decode_s + switch_s, is_decoding=True, is_after_change=True)
            costs.observe(group, 4, decode_s, is_decoding=True, is_after_change=False)
        return run_length(demands, costs, SWITCH_SHARE)

    assert length(0.0, 0.05) == 1
    assert length(0.001, 0.05) == 1
    assert length(0.01, 0.01) == 9
    assert length(0.1, 0.001) == MAX_RUN
