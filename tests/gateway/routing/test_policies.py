"""Routing decisions."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.routing.base import Candidate, candidates
from gateway.routing.policies import LeastLoad, build
from gateway.snapshot import Engine


class FixedLoad:
    def __init__(self, running: dict[int, int]) -> None:
        self._running = running

    def running(self, slot: int) -> int:
        return self._running.get(slot, 0)

    def outstanding_tokens(self, slot: int) -> int:
        return 10 * self.running(slot)


def engine(slot: int, state: str = "ready") -> Engine:
    return Engine(f"m-{slot}", slot, "llamacpp", state, "h", 1)


def test_candidates_are_ready_and_not_excluded() -> None:
    engines = [engine(0), engine(1, "draining"), engine(2), engine(3, "backoff")]
    found = candidates(engines, FixedLoad({2: 4}), excluded=("m-0",))
    assert found == [Candidate(engines[2], 4, 40)]


def test_least_load_takes_the_least_work() -> None:
    loads = [Candidate(engine(0), 1, 5000), Candidate(engine(1), 4, 100), Candidate(engine(2), 9, 0)]
    decision = LeastLoad(random.randrange).choose(loads)
    assert decision.engine.id == "m-1"
    assert "4 running" in decision.why


def test_ties_are_spread_evenly() -> None:
    policy = build("least_load", random.Random(1).randrange)
    loads = [Candidate(engine(slot), 2, 7) for slot in range(3)] + [Candidate(engine(3), 3, 7)]
    chosen = Counter(policy.choose(loads).engine.id for _ in range(3000))
    assert set(chosen) == {"m-0", "m-1", "m-2"}
    assert min(chosen.values()) > 900


def test_the_only_one_needs_no_luck() -> None:
    def never(_: int) -> int:
        raise AssertionError

    assert LeastLoad(never).choose([Candidate(engine(0), 5, 5)]).why == "only ready replica"


def test_unknown_policy() -> None:
    with pytest.raises(KeyError):
        build("fastest", random.randrange)
